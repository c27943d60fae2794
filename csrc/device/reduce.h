// Sums over a warp or a block, in a fixed order: the same bits in every run. Every thread of the warp or block must
// call them.
#pragma once
#include "device/device.h"
#include "device/warp_lanes.h"

namespace convlab {

// The sum of `value` over each `lanes` neighbouring lanes of a warp, in all of them: a tree of shuffles. across: over
// those of them that are a multiple of so many apart.
template <int lanes = kWarpLanes, int across = 1> __device__ __forceinline__ float lanes_sum(float value) {
  static_assert((lanes & (lanes - 1)) == 0 && lanes <= kWarpLanes, "the tree halves, so it sums a power of two");
  for (int apart = lanes / 2; apart >= across; apart /= 2) value += __shfl_xor_sync(0xffffffffu, value, apart);
  return value;
}

// The sum of `value` over the block's kThreads threads, in thread 0, and 0 in the others: a tree in shared memory,
// log2(kThreads) steps.
template <int kThreads, class A> __device__ A block_sum(A value) {
  static_assert((kThreads & (kThreads - 1)) == 0, "the tree halves the block, so its size is a power of two");
  SHARED(A, parts, [kThreads]);
  parts[threadIdx.x] = value;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) parts[threadIdx.x] += parts[threadIdx.x + half];
  }
  return threadIdx.x == 0 ? parts[0] : A(0);  // the others' step may come before the last sum
}

// The block's sums of kSums values a thread, each given to one thread as write(i, sum): the warps' by trees of
// shuffles, the block's in the order of its warps. across: of the threads with one remainder by that many, as
// write(i * across + remainder, sum).
template <int kThreads, int across = 1, int kSums, class Write>
__device__ __forceinline__ void block_sums(const float (&sums)[kSums], const Write& write) {
  constexpr int kWarps = kThreads / kWarpLanes;
  SHARED(float, parts, [kWarps][kSums * across]);
  const int lane = threadIdx.x % kWarpLanes;
#pragma unroll
  for (int i = 0; i < kSums; i++) {
    const float sum = lanes_sum<kWarpLanes, across>(sums[i]);
    if (lane < across) parts[threadIdx.x / kWarpLanes][i * across + lane] = sum;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kSums * across; i += kThreads) {
    float sum = parts[0][i];
    for (int warp = 1; warp < kWarps; warp++) sum += parts[warp][i];
    write(i, sum);
  }
}

}  // namespace convlab
