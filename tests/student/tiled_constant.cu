// A block's part of an input plane in shared memory, with its halo, and the filters in constant memory.
#include <cuda_runtime.h>

#define TILE 16
#define MAX_R 5
#define MAX_WEIGHTS 4096

__constant__ float filters[MAX_WEIGHTS];

const char* refusal(int N, int C, int H, int W, int K, int R, int S) {
  return R > MAX_R || S > MAX_R || K * C * R * S > MAX_WEIGHTS ? "takes filters to 5 x 5, and 4096 weights" : nullptr;
}

__global__ void convolve(const float* x, const float* bias, float* y, int C, int H, int W, int K, int R, int S, int P, int Q) {
  __shared__ float tile[TILE + MAX_R - 1][TILE + MAX_R - 1];
  int q0 = blockIdx.x * TILE, p0 = blockIdx.y * TILE, k = blockIdx.z % K, n = blockIdx.z / K;
  float sum = bias ? bias[k] : 0.0f;
  for (int c = 0; c < C; c++) {
    for (int i = threadIdx.y; i < TILE + R - 1; i += TILE)
      for (int j = threadIdx.x; j < TILE + S - 1; j += TILE)
        tile[i][j] = p0 + i < H && q0 + j < W ? x[((n * C + c) * H + p0 + i) * W + q0 + j] : 0.0f;
    __syncthreads();  // loaded
    for (int r = 0; r < R; r++)
      for (int s = 0; s < S; s++) sum += tile[threadIdx.y + r][threadIdx.x + s] * filters[((k * C + c) * R + r) * S + s];
    __syncthreads();  // used
  }
  int p = p0 + threadIdx.y, q = q0 + threadIdx.x;
  if (p < P && q < Q) y[((n * K + k) * P + p) * Q + q] = sum;
}

void conv2d_forward(const float* x, const float* w, const float* bias, float* y, int N, int C, int H, int W, int K, int R, int S) {
  int P = H - R + 1, Q = W - S + 1;
  cudaMemcpyToSymbol(filters, w, K * C * R * S * sizeof(float), 0, cudaMemcpyDeviceToDevice);
  dim3 grid((Q + TILE - 1) / TILE, (P + TILE - 1) / TILE, N * K);
  convolve<<<grid, dim3(TILE, TILE)>>>(x, bias, y, C, H, W, K, R, S, P, Q);
}
