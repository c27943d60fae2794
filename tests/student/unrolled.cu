// The input is unrolled to a matrix [C R S, P Q] an image, in memory of the launcher's own, and multiplied with the
// filters [K, C R S].
#include <cuda_runtime.h>
#include <cstdlib>
#include <cstdio>

#define CHECK(call)                                                                    \
  do {                                                                                 \
    cudaError_t error = call;                                                          \
    if (error != cudaSuccess) {                                                        \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, cudaGetErrorString(error));   \
      exit(1);                                                                         \
    }                                                                                  \
  } while (0)

#define TILE 16

__global__ void unroll(const float* image, float* columns, int C, int H, int W, int R, int S, int P, int Q, int stride_h, int stride_w, int pad_h, int pad_w) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= C * R * S * P * Q) return;
  int q = i % Q, p = i / Q % P, s = i / Q / P % S, r = i / Q / P / S % R, c = i / Q / P / S / R;
  int h = p * stride_h - pad_h + r, v = q * stride_w - pad_w + s;
  if (h >= 0 && h < H && v >= 0 && v < W) columns[i] = image[(c * H + h) * W + v];
}

__global__ void multiply(const float* a, const float* b, const float* bias, float* d, int m, int n, int k) {
  __shared__ float as[TILE][TILE];
  __shared__ float bs[TILE][TILE];
  int row = blockIdx.y * TILE + threadIdx.y, column = blockIdx.x * TILE + threadIdx.x;
  float sum = 0;
  for (int first = 0; first < k; first += TILE) {
    as[threadIdx.y][threadIdx.x] = row < m && first + threadIdx.x < k ? a[row * k + first + threadIdx.x] : 0;
    bs[threadIdx.y][threadIdx.x] = column < n && first + threadIdx.y < k ? b[(first + threadIdx.y) * n + column] : 0;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < TILE; i++) sum += as[threadIdx.y][i] * bs[i][threadIdx.x];
    __syncthreads();
  }
  if (row < m && column < n) d[row * n + column] = sum + (bias ? bias[row] : 0);
}

void conv2d_forward(const float* x, const float* w, const float* bias, float* y, int N, int C, int H, int W, int K, int R, int S, int stride_h, int stride_w, int pad_h, int pad_w) {
  int P = (H + 2 * pad_h - R) / stride_h + 1, Q = (W + 2 * pad_w - S) / stride_w + 1, size = C * R * S;
  float* columns;
  CHECK(cudaMalloc((void**)&columns, size * P * Q * sizeof(float)));
  for (int n = 0; n < N; n++) {
    CHECK(cudaMemset(columns, 0, size * P * Q * sizeof(float)));
    unroll<<<(size * P * Q + 255) / 256, 256>>>(x + n * C * H * W, columns, C, H, W, R, S, P, Q, stride_h, stride_w, pad_h, pad_w);
    CHECK(cudaGetLastError());
    multiply<<<dim3((P * Q + TILE - 1) / TILE, (K + TILE - 1) / TILE), dim3(TILE, TILE)>>>(w, columns, bias, y + n * K * P * Q, K, P * Q, size);
    CHECK(cudaGetLastError());
  }
  CHECK(cudaDeviceSynchronize());
  CHECK(cudaFree(columns));
}
