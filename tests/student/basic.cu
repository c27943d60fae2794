// The direct convolution: a thread an output, a block 16 x 16 of them in one plane.
#include <cuda_runtime.h>

#define TILE 16

__global__ void conv_basic(const float* x, const float* w, const float* bias, float* y, int C, int H, int W, int K, int R, int S, int P, int Q) {
  int q = blockIdx.x * blockDim.x + threadIdx.x;
  int p = blockIdx.y * blockDim.y + threadIdx.y;
  int k = blockIdx.z % K, n = blockIdx.z / K;
  if (p >= P || q >= Q) return;
  float sum = 0.0f;
  for (int c = 0; c < C; c++) {
    for (int r = 0; r < R; r++) {
      for (int s = 0; s < S; s++) {
        float value = x[((n * C + c) * H + p + r) * W + q + s];
        sum += value * w[((k * C + c) * R + r) * S + s];
      }
    }
  }
  if (bias) sum += bias[k];
  y[((n * K + k) * P + p) * Q + q] = sum;
}

void conv2d_forward(const float* x, const float* w, const float* bias, float* y, int N, int C, int H, int W, int K, int R, int S) {
  int P = H - R + 1, Q = W - S + 1;
  dim3 block(TILE, TILE);
  dim3 grid((Q + TILE - 1) / TILE, (P + TILE - 1) / TILE, N * K);
  conv_basic<<<grid, block>>>(x, w, bias, y, C, H, W, K, R, S, P, Q);
}
