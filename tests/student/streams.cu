// The batch in two parts, each in a stream of its own.
#include <cuda_runtime.h>

#define TILE 16
#define STREAMS 2

__global__ void convolve(const float* x, const float* w, const float* bias, float* y, int C, int H, int W, int K, int R, int S, int P, int Q) {
  int q = blockIdx.x * TILE + threadIdx.x, p = blockIdx.y * TILE + threadIdx.y, k = blockIdx.z % K, n = blockIdx.z / K;
  if (p >= P || q >= Q) return;
  float sum = bias ? bias[k] : 0.0f;
  for (int c = 0; c < C; c++)
    for (int r = 0; r < R; r++)
      for (int s = 0; s < S; s++) sum += x[((n * C + c) * H + p + r) * W + q + s] * w[((k * C + c) * R + r) * S + s];
  y[((n * K + k) * P + p) * Q + q] = sum;
}

void conv2d_forward(const float* x, const float* w, const float* bias, float* y, int N, int C, int H, int W, int K, int R, int S) {
  int P = H - R + 1, Q = W - S + 1;
  cudaStream_t streams[STREAMS];
  for (int i = 0; i < STREAMS; i++) cudaStreamCreate(&streams[i]);
  int part = (N + STREAMS - 1) / STREAMS;
  for (int i = 0; i < STREAMS; i++) {
    int first = i * part, images = first + part < N ? part : N - first;
    if (images <= 0) break;
    dim3 grid((Q + TILE - 1) / TILE, (P + TILE - 1) / TILE, images * K);
    convolve<<<grid, dim3(TILE, TILE), 0, streams[i]>>>(x + first * C * H * W, w, bias, y + first * K * P * Q, C, H, W, K, R, S, P, Q);
  }
  for (int i = 0; i < STREAMS; i++) {
    cudaStreamSynchronize(streams[i]);
    cudaStreamDestroy(streams[i]);
  }
}
