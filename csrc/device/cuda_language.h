// The device language for nvcc; device.h says what the words mean.
#pragma once
#include <cuda_runtime.h>

#include <utility>

#define SHARED(T, name, dims) __shared__ __align__(16) T name dims
#define DYNAMIC_SHARED(T, name)                                            \
  extern __shared__ __align__(128) unsigned char convlab_dynamic_shared[]; \
  T* const name = reinterpret_cast<T*>(convlab_dynamic_shared)
#define COPY_TO_SYMBOL(symbol, source, bytes, stream)                                                 \
  ::convlab::check_cuda(cudaMemcpyToSymbolAsync(symbol, source, bytes, 0, cudaMemcpyDefault, stream), \
                        "copy to constant memory")

namespace convlab {

// Of csrc/cuda/current_device.cu, so that not every file of kernels compiles what they need
[[noreturn]] void refuse_cuda_error(cudaError_t error, const char* what);
void allow_shared(const void* kernel, size_t bytes);

inline void check_cuda(cudaError_t error, const char* what) {
  if (error != cudaSuccess) refuse_cuda_error(error, what);
}

template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream, A&&... arguments) {
  static_assert(sizeof...(P) == sizeof...(A), "launch: wrong number of kernel arguments");
  if (shared_bytes) allow_shared(reinterpret_cast<const void*>(kernel), shared_bytes);
  kernel<<<grid, block, shared_bytes, stream>>>(static_cast<P>(std::forward<A>(arguments))...);
  check_cuda(cudaGetLastError(), "kernel launch");
}

}  // namespace convlab
