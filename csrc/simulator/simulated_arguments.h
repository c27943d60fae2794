// csrc/host/arguments.h for the simulator: operators take CPU tensors, kernels see copies of them in simulated device
// memory.
#pragma once
#include "host/tensors.h"
#include "simulator/device_memory.h"

namespace convlab {

class [[nodiscard]] Input {
 public:
  Input(const char* name, const Tensor* t)
      : copy_(sim::DeviceCopy::input(t ? t->const_data_ptr() : nullptr, t ? size_t(t->numel()) * element_bytes(*t) : 0,
                                     t ? element_bytes(*t) : 1, name)) {}
  operator const void*() && { return copy_.get(); }

 private:
  sim::DeviceCopy copy_;
};

class [[nodiscard]] Output {
 public:
  Output(const char* name, Tensor* t)
      : copy_(sim::DeviceCopy::output(t ? t->mutable_data_ptr() : nullptr,
                                      t ? size_t(t->numel()) * element_bytes(*t) : 0, t ? element_bytes(*t) : 1,
                                      name)) {}
  ~Output() { copy_.copy_back(); }
  operator void*() && { return copy_.get(); }

 private:
  sim::DeviceCopy copy_;
};

inline Input in(const char* name, const Tensor& t) { return {name, &t}; }
inline Output out(const char* name, Tensor& t) { return {name, &t}; }
inline Input in_or_null(const char* name, const Tensor* t) { return {name, t}; }
inline Output out_or_null(const char* name, Tensor* t) { return {name, t}; }

class Scratch {
 public:
  Scratch(const char* name, int64_t bytes, const Tensor&) : copy_(sim::DeviceCopy::scratch(size_t(bytes), name)) {}
  void* get() { return copy_.get(); }

 private:
  sim::DeviceCopy copy_;
};

}  // namespace convlab
