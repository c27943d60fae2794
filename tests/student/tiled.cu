// A block's part of an input plane goes through shared memory, with its halo.
#include <cuda_runtime.h>
#include <stdio.h>

#define TILE 16
#define MAX_R 7
#define IN (TILE + MAX_R - 1)

const char* refusal(int N, int C, int H, int W, int K, int R, int S, int stride, int pad) {
  if (stride != 1) return "takes stride 1";
  if (R > MAX_R || S > MAX_R) return "takes filters to 7 x 7";
  return nullptr;
}

__global__ void conv_tiled(const float* x, const float* w, const float* bias, float* y, int C, int H, int W, int K, int R, int S, int P, int Q, int pad) {
  __shared__ float tile[IN][IN], filter[MAX_R][MAX_R];
  int tx = threadIdx.x, ty = threadIdx.y;
  int q0 = blockIdx.x * TILE, p0 = blockIdx.y * TILE;
  int k = blockIdx.z % K, n = blockIdx.z / K;
  float sum = bias ? bias[k] : 0.0f;
  for (int c = 0; c < C; c++) {
    for (int i = ty; i < TILE + R - 1; i += TILE) {
      for (int j = tx; j < TILE + S - 1; j += TILE) {
        int h = p0 + i - pad, v = q0 + j - pad;
        bool inside = h >= 0 && h < H && v >= 0 && v < W;
        tile[i][j] = inside ? x[((n * C + c) * H + h) * W + v] : 0.0f;
      }
    }
    if (ty < R && tx < S) filter[ty][tx] = w[((k * C + c) * R + ty) * S + tx];
    __syncthreads();  // loaded
    for (int r = 0; r < R; r++)
      for (int s = 0; s < S; s++)
        sum += tile[ty + r][tx + s] * filter[r][s];
    __syncthreads();  // used
  }
  int p = p0 + ty, q = q0 + tx;
  if (p < P && q < Q) y[((n * K + k) * P + p) * Q + q] = sum;
}

void conv2d_forward(const float* x, const float* w, const float* bias, float* y, int N, int C, int H, int W, int K, int R, int S, int stride, int pad) {
  int P = H + 2 * pad - R + 1, Q = W + 2 * pad - S + 1;
  dim3 block(TILE, TILE);
  dim3 grid((Q + TILE - 1) / TILE, (P + TILE - 1) / TILE, N * K);
  conv_tiled<<<grid, block>>>(x, w, bias, y, C, H, W, K, R, S, P, Q, pad);
  cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) printf("conv_tiled: %s\n", cudaGetErrorString(error));
}
