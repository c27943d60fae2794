// The third step: a thread makes four rows of outputs.
// A weight is read once for the four, an input once for the rows of the filter that see it, and both stay in registers
// meanwhile.
//
//   python -m convlab.check examples/conv2d/4_four_rows.cuh
#include "device/device.h"
#include "geometry/conv2d.h"

using namespace convlab;

constexpr int kSide = 16;  // a block makes 16 x 16 outputs
constexpr int kMostTaps = 7;  // along a side of the filter
constexpr int kMaps = 4;  // output channels that a thread makes of one input tile,
constexpr int kRows = 4;  // and neighbouring rows of outputs
constexpr int kDown = kSide / kRows;  // threads from the top of a block to its bottom
constexpr int kExtent = kSide + kMostTaps - 1;  // of the input tile: outputs and halo

inline const char* refusal(const Conv2d& g) {
  if (g.stride_h != 1 || g.stride_w != 1 || g.dilation_h != 1 || g.dilation_w != 1 || g.groups != 1)
    return "has stride 1, dilation 1 and one group";
  if (g.R > kMostTaps || g.S > kMostTaps) return "has filters of up to 7 x 7";
  return nullptr;
}

// x [N, C, H, W], w [K, C, R, S], bias [K] or null -> y [N, K, P, Q].  grid (tiles, maps, n), block (16, 4)
__global__ void __launch_bounds__(kSide* kDown)
    tiled_kernel(Conv2d g, const float* x, const float* w, const float* bias, float* y) {
  SHARED(float, tile, [kExtent][kExtent]);
  SHARED(float, filters, [kMaps][kMostTaps * kMostTaps]);  // of the channel at hand
  const int tiles_v = (g.Q + kSide - 1) / kSide, k0 = blockIdx.y * kMaps, n = blockIdx.z;
  const int p0 = blockIdx.x / tiles_v * kSide, q0 = blockIdx.x % tiles_v * kSide;
  const int ty = threadIdx.y, tx = threadIdx.x;
  const int taps = g.R * g.S;

  float sums[kMaps][kRows] = {};
  for (int c = 0; c < g.C; c++) {
    for (int i = ty; i < kSide + g.R - 1; i += kDown)
      for (int j = tx; j < kSide + g.S - 1; j += kSide) {
        const int h = p0 + i - g.pad_h, v = q0 + j - g.pad_w;
        tile[i][j] = h >= 0 && h < g.H && v >= 0 && v < g.W ? x[((long long)(n * g.C + c) * g.H + h) * g.W + v] : 0.0f;
      }
    for (int i = ty * kSide + tx; i < kMaps * taps; i += kSide * kDown)
      filters[i / taps][i % taps] = k0 + i / taps < g.K ? w[((k0 + i / taps) * g.C + c) * taps + i % taps] : 0.0f;
    __syncthreads();
    for (int s = 0; s < g.S; s++) {
      float in[kRows];  // a window that slides down a column
      for (int i = 0; i < kRows - 1; i++) in[i + 1] = tile[kRows * ty + i][tx + s];
      for (int r = 0; r < g.R; r++) {
        for (int i = 0; i < kRows - 1; i++) in[i] = in[i + 1];
        in[kRows - 1] = tile[kRows * ty + r + kRows - 1][tx + s];
        for (int m = 0; m < kMaps; m++) {
          const float filter = filters[m][r * g.S + s];
          for (int i = 0; i < kRows; i++) sums[m][i] += in[i] * filter;
        }
      }
    }
    __syncthreads();
  }
  for (int m = 0; m < kMaps && k0 + m < g.K; m++)
    for (int i = 0; i < kRows; i++) {
      const int p = p0 + kRows * ty + i, q = q0 + tx;
      if (p < g.P && q < g.Q)
        y[((long long)(n * g.K + k0 + m) * g.P + p) * g.Q + q] = sums[m][i] + (bias ? bias[k0 + m] : 0.0f);
    }
}

void conv2d_forward(const Conv2d& g, const float* x, const float* w, const float* bias, float* y, cudaStream_t stream) {
  const int tiles = (g.P + kSide - 1) / kSide * ((g.Q + kSide - 1) / kSide);
  launch(tiled_kernel, dim3(tiles, (g.K + kMaps - 1) / kMaps, g.N), dim3(kSide, kDown), 0, stream, g, x, w, bias, y);
}
