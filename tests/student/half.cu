// The tiled convolution of 16-bit floats, summed in float32.
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define TILE 16

__global__ void conv_half(const __half* x, const __half* w, const __half* bias, __half* y, int C, int H, int W, int K, int R, int S, int P, int Q) {
  extern __shared__ half tile[];
  int width = TILE + S - 1, height = TILE + R - 1;
  int p = blockIdx.y * TILE + threadIdx.y, q = blockIdx.x * TILE + threadIdx.x, k = blockIdx.z % K, n = blockIdx.z / K;
  float sum = 0;
  for (int c = 0; c < C; c++) {
    for (int i = threadIdx.y; i < height; i += TILE)
      for (int j = threadIdx.x; j < width; j += TILE) {
        int h = blockIdx.y * TILE + i, v = blockIdx.x * TILE + j;
        tile[i * width + j] = h < H && v < W ? x[((n * C + c) * H + h) * W + v] : __float2half(0.0f);
      }
    __syncthreads();
    for (int r = 0; r < R; r++)
      for (int s = 0; s < S; s++)
        sum += __half2float(tile[(threadIdx.y + r) * width + threadIdx.x + s]) * __half2float(w[((k * C + c) * R + r) * S + s]);
    __syncthreads();
  }
  if (bias) sum += __half2float(bias[k]);
  if (p < P && q < Q) y[((n * K + k) * P + p) * Q + q] = __float2half(sum);
}

void conv2d_forward(const __half* x, const __half* w, const __half* bias, __half* y, int N, int C, int H, int W, int K, int R, int S) {
  int P = H - R + 1, Q = W - S + 1;
  size_t bytes = (TILE + R - 1) * (TILE + S - 1) * sizeof(__half);
  conv_half<<<dim3((Q + TILE - 1) / TILE, (P + TILE - 1) / TILE, N * K), dim3(TILE, TILE), bytes>>>(x, w, bias, y, C, H, W, K, R, S, P, Q);
}
