// dy as the warpgroup rung's wgrad takes it in TF32: filters in rows, the positions of all images side by side.
#pragma once
#include "kernels/conv2d_as_mma.h"

namespace convlab {

// from [N, K, pixels] in either layout -> to [K][pitch], where zeros follow the positions, and where wanted behind it the
// same of what TF32, truncated, leaves, rounded.
// grid (ceil(pitch / 32), ceil(K / 32) or less)
template <bool kChannelsLast>
__global__ void __launch_bounds__(kLayoutThreads)
    positions_inner_kernel(int K, long long pixels, long long positions, long long pitch,
                           const float* __restrict__ from, float* __restrict__ to, float* __restrict__ rest) {
  constexpr int kAtOnce = kLayoutThreads / kTransposed;
  SHARED(float, tile, [kTransposed][kTransposed + 1]);
  const int lane = int(threadIdx.x) % kTransposed, first = int(threadIdx.x) / kTransposed;
  const long long position0 = (long long)blockIdx.x * kTransposed, position = position0 + lane;
  const long long image = position / pixels, pixel = position - image * pixels;
  for (int k0 = int(blockIdx.y) * kTransposed; k0 < K; k0 += int(gridDim.y) * kTransposed) {
    if constexpr (kChannelsLast) {
      __syncthreads();  // nobody reads the tile
#pragma unroll
      for (int i = first; i < kTransposed; i += kAtOnce)
        tile[i][lane] = position0 + i < positions && k0 + lane < K ? from[(position0 + i) * K + k0 + lane] : 0.0f;
      __syncthreads();
    }
#pragma unroll
    for (int i = first; i < kTransposed; i += kAtOnce) {
      if (k0 + i >= K || position >= pitch) continue;
      float value = 0;
      if constexpr (kChannelsLast) value = tile[lane][i];
      else if (position < positions) value = from[(image * K + k0 + i) * pixels + pixel];
      to[(k0 + i) * pitch + position] = value;
      if (rest) {
        const float left = value - __uint_as_float(__float_as_uint(value) & 0xffffe000);
        rest[(k0 + i) * pitch + position] = __uint_as_float(__float_as_uint(left) + 0x1000);  // wgmma truncates it
      }
    }
  }
}

}  // namespace convlab
