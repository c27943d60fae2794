// Sums over a block, in a fixed order.
#pragma once
#include "device/device.h"

namespace convlab {

// The sum of `value` over the block's kThreads threads, in thread 0. A tree in shared memory: log2(kThreads) steps, and
// the same order of additions in every run. Every thread of the block must call it.
template <int kThreads, class A> __device__ A block_sum(A value) {
  static_assert((kThreads & (kThreads - 1)) == 0, "the tree halves the block, so its size is a power of two");
  SHARED(A, parts, [kThreads]);
  parts[threadIdx.x] = value;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) parts[threadIdx.x] += parts[threadIdx.x + half];
  }
  return parts[0];
}

}  // namespace convlab
