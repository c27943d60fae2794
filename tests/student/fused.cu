// Unrolling and multiplication in one kernel: the tile of columns is made in shared memory, and never lies in device
// memory.
#include <cuda_runtime.h>

namespace {

constexpr int kTile = 16;

struct Problem {
  int C, H, W, K, R, S, P, Q, stride, pad;
};

__device__ __forceinline__ float column(const float* x, const Problem& g, int row, int pixel) {
  int s = row % g.S, r = row / g.S % g.R, c = row / g.S / g.R;
  int h = pixel / g.Q * g.stride - g.pad + r, v = pixel % g.Q * g.stride - g.pad + s;
  if (h < 0 || h >= g.H || v < 0 || v >= g.W) return 0.0f;
  return x[(c * g.H + h) * g.W + v];
}

__global__ void fused(const float* x, const float* w, const float* bias, float* y, Problem g) {
  __shared__ struct {
    float w[kTile][kTile + 1], x[kTile][kTile];
  } tiles;
  const int size = g.C * g.R * g.S, pixels = g.P * g.Q;
  const int k = blockIdx.y * kTile + threadIdx.y, pixel = blockIdx.x * kTile + threadIdx.x;
  x += blockIdx.z * g.C * g.H * g.W;
  float sum = bias && k < g.K ? bias[k] : 0.0f;
  for (int first = 0; first < size; first += kTile) {
    const int across = first + threadIdx.x, down = first + threadIdx.y;
    tiles.w[threadIdx.y][threadIdx.x] = k < g.K && across < size ? w[k * size + across] : 0.0f;
    tiles.x[threadIdx.y][threadIdx.x] = pixel < pixels && down < size ? column(x, g, down, pixel) : 0.0f;
    __syncthreads();
    for (int i = 0; i < kTile; i++) sum += tiles.w[threadIdx.y][i] * tiles.x[i][threadIdx.x];
    __syncthreads();
  }
  if (k < g.K && pixel < pixels) y[(blockIdx.z * g.K + k) * pixels + pixel] = sum;
}

}  // namespace

void conv2d_forward(const float* x, const float* w, const float* bias, float* y, int N, int C, int H, int W, int K, int R, int S, int stride, int pad) {
  const Problem g = {C, H, W, K, R, S, (H + 2 * pad - R) / stride + 1, (W + 2 * pad - S) / stride + 1, stride, pad};
  const dim3 grid((g.P * g.Q + kTile - 1) / kTile, (K + kTile - 1) / kTile, N);
  fused<<<grid, dim3(kTile, kTile)>>>(x, w, bias, y, g);
}
