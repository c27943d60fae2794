// The device language: the one header that kernels include for everything CUDA (vector.h, async_copy.h, mma.h and
// constant_memory.h beside it when they need them). Kernels keep to what is named here and to plain CUDA C++. nvcc
// compiles them for the GPU, a C++20 compiler for the simulator (csrc/simulator/), from the same text.
//
//   SHARED(float, tile, [16][64]);      a static array in shared memory
//   DYNAMIC_SHARED(float, tile);        a pointer to the dynamic shared memory, 128-byte aligned
//   COPY_TO_SYMBOL(symbol, source, bytes, stream);
//                                       to __constant__ memory, from the device's or the host's; see constant_memory.h
//   launch(kernel<T>, grid, block, shared_bytes, stream, arguments...);
//                                       checked; throws std::runtime_error
//
// Subset: shared memory only through SHARED and DYNAMIC_SHARED; template arguments of a launched kernel are explicit;
// min and max take two values of one type; bit casts are the intrinsics (__float_as_uint); every __syncwarp that orders
// memory is of the full warp; threads of different blocks never wait for each other.
#pragma once

#if defined(__CUDACC__)
#include "device/cuda_language.h"
#else
#include "simulator/cuda_on_host.h"
#endif

#include <stdexcept>
#include <string>

namespace convlab {

// What was loaded from memory before this is loaded again behind it: for loops in which the compiler would otherwise
// keep in registers what does not fit there. No instruction.
__device__ __forceinline__ void load_again() { asm volatile("" ::: "memory"); }

// The same pointer, but the compiler no longer knows how it was computed: an offset to it is one addition, not parts of
// several from here and there. No instruction.
template <class T> __device__ __forceinline__ const T* settled(const T* pointer) {
#if defined(__CUDACC__)
  asm volatile("" : "+l"(pointer));
#endif
  return pointer;
}

// The same int, but the compiler does not know it from the one before: it makes no copies of code for what either may be.
__device__ __forceinline__ int settled(int value) {
#if defined(__CUDACC__)
  asm volatile("" : "+r"(value));
#endif
  return value;
}

// Blocks of `threads` for `elements` threads in one dimension. grid.x ends at 2^31 - 1.
inline dim3 blocks_for(long long elements, int threads) {
  const long long blocks = (elements + threads - 1) / threads;
  if (blocks > 0x7fffffffLL)
    throw std::runtime_error("convlab: " + std::to_string(elements) + " elements are more than one launch can cover");
  return dim3(unsigned(blocks));
}

}  // namespace convlab
