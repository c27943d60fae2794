// 5. Joint register and shared-memory tiling.
//
// This kernel is right. For each multiply-add a thread reads two floats of shared memory, 8 bytes, which bounds it. Give
// each thread several outputs in registers, so that what it has read is used several times.
// Grade it:  python -m convlab.check FILE --assignment 5
#include <cuda_runtime.h>

#define TILE 16

__global__ void convolve(const float* x, const float* w, const float* bias, float* y, int C, int H, int W, int K, int R,
                         int S, int P, int Q) {
  __shared__ float filters[TILE][TILE], columns[TILE][TILE];
  int size = C * R * S, pixels = P * Q;
  int k = blockIdx.y * TILE + threadIdx.y, pixel = blockIdx.x * TILE + threadIdx.x, n = blockIdx.z;
  float sum = bias && k < K ? bias[k] : 0.0f;
  for (int first = 0; first < size; first += TILE) {
    int across = first + threadIdx.x, down = first + threadIdx.y;
    filters[threadIdx.y][threadIdx.x] = k < K && across < size ? w[k * size + across] : 0.0f;
    int s = down % S, r = down / S % R, c = down / S / R, p = pixel / Q, q = pixel % Q;
    columns[threadIdx.y][threadIdx.x] = pixel < pixels && down < size ? x[((n * C + c) * H + p + r) * W + q + s] : 0.0f;
    __syncthreads();
    for (int i = 0; i < TILE; i++) sum += filters[threadIdx.y][i] * columns[i][threadIdx.x];
    __syncthreads();
  }
  if (k < K && pixel < pixels) y[(n * K + k) * pixels + pixel] = sum;
}

void conv2d_forward(const float* x, const float* w, const float* bias, float* y, int N, int C, int H, int W, int K,
                    int R, int S) {
  int P = H - R + 1, Q = W - S + 1;
  dim3 grid((P * Q + TILE - 1) / TILE, (K + TILE - 1) / TILE, N);
  convolve<<<grid, dim3(TILE, TILE)>>>(x, w, bias, y, C, H, W, K, R, S, P, Q);
}
