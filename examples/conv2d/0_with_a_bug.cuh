// A convolution in tiles, as a first attempt might look. It gives right results on most GPUs, most of the time. Find
// the bug:
//
//   python -m convlab.check examples/conv2d/0_with_a_bug.cuh
#include "device/device.h"
#include "geometry/conv2d.h"

using namespace convlab;

constexpr int kSide = 16;           // a block makes 16 x 16 outputs, a thread one
constexpr int kMostTaps = 7;        // along a side of the filter
constexpr int kExtent = kSide + kMostTaps - 1;  // of the input tile: outputs and halo

inline const char* refusal(const Conv2d& g) {
  if (g.stride_h != 1 || g.stride_w != 1 || g.dilation_h != 1 || g.dilation_w != 1 || g.groups != 1)
    return "has stride 1, dilation 1 and one group";
  if (g.R > kMostTaps || g.S > kMostTaps) return "has filters of up to 7 x 7";
  return nullptr;
}

// x [N, C, H, W], w [K, C, R, S], bias [K] or null -> y [N, K, P, Q].  grid (tiles, k, n), block (16, 16)
__global__ void __launch_bounds__(kSide* kSide)
    tiled_kernel(Conv2d g, const float* x, const float* w, const float* bias, float* y) {
  SHARED(float, tile, [kExtent][kExtent]);
  const int tiles_v = (g.Q + kSide - 1) / kSide, k = blockIdx.y, n = blockIdx.z;
  const int p0 = blockIdx.x / tiles_v * kSide, q0 = blockIdx.x % tiles_v * kSide;
  const int ty = threadIdx.y, tx = threadIdx.x;

  float sum = bias ? bias[k] : 0.0f;
  for (int c = 0; c < g.C; c++) {
    for (int i = ty; i < kSide + g.R - 1; i += kSide)
      for (int j = tx; j < kSide + g.S - 1; j += kSide) {
        const int h = p0 + i - g.pad_h, v = q0 + j - g.pad_w;
        tile[i][j] = h >= 0 && h < g.H && v >= 0 && v < g.W ? x[((long long)(n * g.C + c) * g.H + h) * g.W + v] : 0.0f;
      }
    __syncthreads();
    for (int r = 0; r < g.R; r++)
      for (int s = 0; s < g.S; s++) sum += tile[ty + r][tx + s] * w[((k * g.C + c) * g.R + r) * g.S + s];
  }
  if (p0 + ty < g.P && q0 + tx < g.Q) y[((long long)(n * g.K + k) * g.P + p0 + ty) * g.Q + q0 + tx] = sum;
}

void conv2d_forward(const Conv2d& g, const float* x, const float* w, const float* bias, float* y, cudaStream_t stream) {
  const int tiles = (g.P + kSide - 1) / kSide * ((g.Q + kSide - 1) / kSide);
  launch(tiled_kernel, dim3(tiles, g.K, g.N), dim3(kSide, kSide), 0, stream, g, x, w, bias, y);
}
