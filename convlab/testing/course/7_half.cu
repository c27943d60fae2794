// 7. 16-bit floats.
//
// Tensors hold __half, half the bytes. This kernel sums in __half, too, which has 11 bits: the sums come out wrong by more
// than rounding. Sum in float32, and round once.
// Grade it:  python -m convlab.check FILE --assignment 7
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define TILE 16

__global__ void convolve(const __half* x, const __half* w, const __half* bias, __half* y, int C, int H, int W, int K,
                         int R, int S, int P, int Q) {
  int q = blockIdx.x * TILE + threadIdx.x, p = blockIdx.y * TILE + threadIdx.y, k = blockIdx.z % K, n = blockIdx.z / K;
  if (p >= P || q >= Q) return;
  __half sum = bias ? bias[k] : __float2half(0.0f);
  for (int c = 0; c < C; c++)
    for (int r = 0; r < R; r++)
      for (int s = 0; s < S; s++)
        sum = __hfma(x[((n * C + c) * H + p + r) * W + q + s], w[((k * C + c) * R + r) * S + s], sum);
  y[((n * K + k) * P + p) * Q + q] = sum;
}

void conv2d_forward(const __half* x, const __half* w, const __half* bias, __half* y, int N, int C, int H, int W, int K,
                    int R, int S) {
  int P = H - R + 1, Q = W - S + 1;
  dim3 grid((Q + TILE - 1) / TILE, (P + TILE - 1) / TILE, N * K);
  convolve<<<grid, dim3(TILE, TILE)>>>(x, w, bias, y, C, H, W, K, R, S, P, Q);
}
