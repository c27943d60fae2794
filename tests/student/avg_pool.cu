// An average pooling, a warp an output: its lanes share the window, and add up by shuffles.
#include <cassert>
#include <cuda_runtime.h>

__global__ void avg_pool(const float* x, float* y, int outputs, int H, int W, int P, int Q, int size) {
  int output = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
  if (output >= outputs) return;  // all lanes of a warp
  assert(size > 0);
  int q = output % Q, p = output / Q % P, plane = output / Q / P;
  float sum = 0;
  for (int i = lane; i < size * size; i += 32)
    sum += x[(plane * H + p * size + i / size) * W + q * size + i % size];
  for (int offset = 16; offset > 0; offset /= 2)
    sum += __shfl_down_sync(0xffffffff, sum, offset);
  if (lane == 0) y[output] = sum / (size * size);
}

void avg_pool2d_forward(const float* x, float* y, int N, int C, int H, int W, int size) {
  int P = H / size, Q = W / size, outputs = N * C * P * Q;
  avg_pool<<<(outputs + 7) / 8, 256>>>(x, y, outputs, H, W, P, Q, size);
}
