// A max pooling of one's own. Check it without a GPU:
//
//   python -m convlab.check FILE --like max_pool2d_forward
//
//   y[n, c, p, q] = max over r, s < size of x[n, c, p stride - pad + r, q stride - pad + s]
//
// Taps outside x do not take part; NaN wins. The launcher may take more, or less: python -m convlab.check --forms --like
// max_pool2d_forward lists what.
#include <cuda_runtime.h>

constexpr int kThreads = 256;

// x [planes, H, W] -> y [planes, P, Q].  grid ceil(planes PQ / 256), a thread an output
__global__ void my_kernel(const float* x, float* y, int planes, int H, int W, int P, int Q, int size, int stride,
                          int pad) {
  const int i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= planes * P * Q) return;
  const int q = i % Q, p = i / Q % P;
  const float* plane = x + i / Q / P * H * W;

  float best = -INFINITY;
  for (int r = 0; r < size; r++)
    for (int s = 0; s < size; s++) {
      const int h = p * stride - pad + r, v = q * stride - pad + s;
      if (h < 0 || h >= H || v < 0 || v >= W) continue;
      const float value = plane[h * W + v];
      if (value > best || value != value) best = value;
    }
  y[i] = best;
}

// What is checked. Pointers are to device memory; y is not empty.
void max_pool2d_forward(const float* x, float* y, int N, int C, int H, int W, int size, int stride, int pad) {
  const int P = (H + 2 * pad - size) / stride + 1, Q = (W + 2 * pad - size) / stride + 1;
  const int threads = N * C * P * Q;
  my_kernel<<<(threads + kThreads - 1) / kThreads, kThreads>>>(x, y, N * C, H, W, P, Q, size, stride, pad);
}
