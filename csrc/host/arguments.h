// How tensors become the pointers that kernels take. Names are for reports, and are those of the operator's arguments.
//
//   in("input", x)     const void*: a tensor that a kernel reads
//   out("y", y)        void*: a tensor that a kernel writes, every element of it
//   Scratch            memory that lives as long as the object
//
// In the simulator each is a copy in simulated device memory, which lasts to the end of the full expression; so in()
// and out() stand in the call of the kernel's launcher itself.
#pragma once
#include "host/tensors.h"

#if defined(CONVLAB_SIMULATED)
#include "simulator/simulated_arguments.h"
#else

namespace convlab {

inline const void* in(const char*, const Tensor& t) { return t.const_data_ptr(); }
inline void* out(const char*, Tensor& t) { return t.mutable_data_ptr(); }

inline const void* in_or_null(const char* name, const Tensor* t) { return t ? in(name, *t) : nullptr; }
inline void* out_or_null(const char* name, Tensor* t) { return t ? out(name, *t) : nullptr; }

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
