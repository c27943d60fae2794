// A max pooling, a thread an output.
#include <cuda_runtime.h>
#include <cfloat>

__global__ void max_pool(const float* x, float* y, int H, int W, int P, int Q, int size, int stride) {
  int q = blockIdx.x * blockDim.x + threadIdx.x, p = blockIdx.y * blockDim.y + threadIdx.y;
  if (p >= P || q >= Q) return;
  const float* plane = x + blockIdx.z * H * W;
  float best = -FLT_MAX;
  for (int r = 0; r < size; r++)
    for (int s = 0; s < size; s++)
      best = max(best, plane[(p * stride + r) * W + q * stride + s]);
  y[(blockIdx.z * P + p) * Q + q] = best;
}

void max_pool2d_forward(const float* x, float* y, int N, int C, int H, int W, int size, int stride) {
  int P = (H - size) / stride + 1, Q = (W - size) / stride + 1;
  dim3 block(16, 8), grid((Q + 15) / 16, (P + 7) / 8, N * C);
  max_pool<<<grid, block>>>(x, y, H, W, P, Q, size, stride);
}
