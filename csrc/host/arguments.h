// How tensors become the pointers that kernels take. Names are for reports, and are those of the operator's arguments.
//
//   in("input", x)     const void*: a tensor that a kernel reads
//   out("y", y)        void*: a tensor that a kernel writes, every element of it
//   Scratch            memory that lives as long as the object
//
// In the simulator each is a copy in simulated device memory, which lasts to the end of the full expression. So in()
// and out() stand in the call of the kernel's launcher itself, in every build: what they return becomes a pointer only
// as long as it is a temporary, and `auto p = in("input", x); launcher(p)` does not compile.
#pragma once
#include "host/tensors.h"

#if defined(CONVLAB_SIMULATED)
#include "simulator/simulated_arguments.h"
#else

namespace convlab {

template <class Pointer> class [[nodiscard]] Argument {
 public:
  explicit Argument(Pointer pointer) : pointer_(pointer) {}
  Argument(const Argument&) = delete;
  operator Pointer() && { return pointer_; }

 private:
  Pointer pointer_;
};
using Input = Argument<const void*>;
using Output = Argument<void*>;

inline Input in(const char*, const Tensor& t) { return Input(t.const_data_ptr()); }
inline Output out(const char*, Tensor& t) { return Output(t.mutable_data_ptr()); }
inline Input in_or_null(const char*, const Tensor* t) { return Input(t ? t->const_data_ptr() : nullptr); }
inline Output out_or_null(const char*, Tensor* t) { return Output(t ? t->mutable_data_ptr() : nullptr); }

class Scratch {
 public:
  Scratch(const char* name, int64_t bytes, const Tensor& device_of) : memory_(allocated(name, bytes, device_of)) {}
  void* get() { return memory_.mutable_data_ptr(); }

 private:
  // torch's own class of error does not come through the stable ABI, nor, before 2.13, its text.
  static Tensor allocated(const char* name, int64_t bytes, const Tensor& device_of) {
    try {
      return empty({bytes}, ScalarType::Byte, device_of);
    } catch (const std::exception& e) {
      throw std::runtime_error(
          message("convlab: out of memory: ", device_name(device_of), " has no ", bytes, " bytes for a ", name,
                  ": take a smaller batch, free memory, or algo='direct', which needs none (", e.what(), ")"));
    }
  }

  Tensor memory_;
};

}  // namespace convlab

#endif
