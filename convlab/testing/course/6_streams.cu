// 6. The batch in streams.
//
// This is right, and one launch in the default stream. Split the batch into parts, each in a stream of its own, so that
// on a GPU the copies of one part can run beside the kernel of another. Wait for all of them before returning.
// Grade it:  python -m convlab.check FILE --assignment 6
#include <cuda_runtime.h>

#define TILE 16

__global__ void convolve(const float* x, const float* w, const float* bias, float* y, int C, int H, int W, int K, int R,
                         int S, int P, int Q) {
  int q = blockIdx.x * TILE + threadIdx.x, p = blockIdx.y * TILE + threadIdx.y, k = blockIdx.z % K, n = blockIdx.z / K;
  if (p >= P || q >= Q) return;
  float sum = bias ? bias[k] : 0.0f;
  for (int c = 0; c < C; c++)
    for (int r = 0; r < R; r++)
      for (int s = 0; s < S; s++) sum += x[((n * C + c) * H + p + r) * W + q + s] * w[((k * C + c) * R + r) * S + s];
  y[((n * K + k) * P + p) * Q + q] = sum;
}

void conv2d_forward(const float* x, const float* w, const float* bias, float* y, int N, int C, int H, int W, int K,
                    int R, int S) {
  int P = H - R + 1, Q = W - S + 1;
  dim3 grid((Q + TILE - 1) / TILE, (P + TILE - 1) / TILE, N * K);
  convolve<<<grid, dim3(TILE, TILE)>>>(x, w, bias, y, C, H, W, K, R, S, P, Q);
}
