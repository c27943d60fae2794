// The device language: the one header that kernels include for everything CUDA. Kernels keep to what is named here and to
// plain CUDA C++, so that they can be compiled for other machines than a GPU.
//
//   SHARED(float, tile, [16][64]);      a static array in shared memory
//   launch(kernel<T>, grid, block, shared_bytes, stream, arguments...)      checked; throws std::runtime_error
#pragma once
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>
#include <utility>

#define SHARED(T, name, dims) __shared__ __align__(16) T name dims

namespace convlab {

// A block may use this much shared memory without asking the driver first.
constexpr size_t kSharedBytesByDefault = 48 * 1024;

inline void check_cuda(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw std::runtime_error(std::string("convlab: ") + what + ": " + cudaGetErrorString(error));
}

template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream, A&&... arguments) {
  static_assert(sizeof...(P) == sizeof...(A), "launch: wrong number of kernel arguments");
  if (shared_bytes > kSharedBytesByDefault)
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes)), "shared memory of a kernel");
  kernel<<<grid, block, shared_bytes, stream>>>(static_cast<P>(std::forward<A>(arguments))...);
  check_cuda(cudaGetLastError(), "kernel launch");
}

// Blocks of `threads` for `elements` threads in one dimension. grid.x ends at 2^31 - 1.
inline dim3 blocks_for(long long elements, int threads) {
  const long long blocks = (elements + threads - 1) / threads;
  if (blocks > 0x7fffffffLL) throw std::runtime_error("convlab: " + std::to_string(elements) + " elements are more than one launch can cover");
  return dim3(unsigned(blocks));
}

}  // namespace convlab
