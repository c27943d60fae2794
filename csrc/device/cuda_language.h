// The device language for nvcc; device.h says what the words mean.
#pragma once
#include <cuda_runtime.h>

#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>

#define SHARED(T, name, dims) __shared__ __align__(16) T name dims
#define DYNAMIC_SHARED(T, name)                                            \
  extern __shared__ __align__(128) unsigned char convlab_dynamic_shared[]; \
  T* const name = reinterpret_cast<T*>(convlab_dynamic_shared)
#define COPY_TO_SYMBOL(symbol, source, bytes, stream)                                                 \
  ::convlab::check_cuda(cudaMemcpyToSymbolAsync(symbol, source, bytes, 0, cudaMemcpyDefault, stream), \
                        "copy to constant memory")

namespace convlab {

// What to do about a library without code for the current GPU.
inline std::string no_kernel_image() {
  int device = 0, major = 0, minor = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  const std::string arch = std::to_string(major) + "." + std::to_string(minor);
  return ": convlab was not compiled for compute capability " + arch + ", this GPU's: TORCH_CUDA_ARCH_LIST=" + arch +
         " CONVLAB_CUDA=1 pip install --no-build-isolation --force-reinstall --no-deps .";
}

inline void check_cuda(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  const bool no_image = error == cudaErrorNoKernelImageForDevice || error == cudaErrorUnsupportedPtxVersion;
  throw std::runtime_error(std::string("convlab: ") + what + ": " + cudaGetErrorString(error) +
                           (no_image ? no_kernel_image() : ""));
}

// Lets a kernel have so much dynamic shared memory on the current device: with its __shared__ arrays, it gets 48 KiB
// unasked. What is allowed only grows, because another thread may be about to launch it with more.
inline void allow_shared(const void* kernel, size_t bytes) {
  static std::mutex mutex;
  static std::map<std::pair<int, const void*>, size_t> allowed;
  int device = 0;
  check_cuda(cudaGetDevice(&device), "current device");
  const std::lock_guard<std::mutex> lock(mutex);
  size_t& most = allowed[{device, kernel}];
  if (bytes <= most) return;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)),
             "shared memory of a kernel");
  most = bytes;
}

template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream, A&&... arguments) {
  static_assert(sizeof...(P) == sizeof...(A), "launch: wrong number of kernel arguments");
  if (shared_bytes) allow_shared(reinterpret_cast<const void*>(kernel), shared_bytes);
  kernel<<<grid, block, shared_bytes, stream>>>(static_cast<P>(std::forward<A>(arguments))...);
  check_cuda(cudaGetLastError(), "kernel launch");
}

}  // namespace convlab
