// An adaptive average pooling of one's own. Check it without a GPU:
//
//   python -m convlab.check FILE --like adaptive_avg_pool2d_forward
//
//   y[plane, p, q] = the average of x[plane, h, v] with floor(p H / P) <= h < ceil((p + 1) H / P), and v alike
#include <cuda_runtime.h>

constexpr int kThreads = 256;

// x [planes, H, W] -> y [planes, P, Q].  grid ceil(planes PQ / 256), a thread an output
__global__ void my_kernel(const float* x, float* y, int planes, int H, int W, int P, int Q) {
  const int i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= planes * P * Q) return;
  const int q = i % Q, p = i / Q % P;
  const int top = p * H / P, bottom = ((p + 1) * H + P - 1) / P, left = q * W / Q, right = ((q + 1) * W + Q - 1) / Q;
  const float* plane = x + i / Q / P * H * W;

  float sum = 0;
  for (int h = top; h < bottom; h++)
    for (int v = left; v < right; v++) sum += plane[h * W + v];
  y[i] = sum / float((bottom - top) * (right - left));
}

// What is checked. Pointers are to device memory; y is not empty.
void adaptive_avg_pool2d_forward(const float* x, float* y, int planes, int H, int W, int P, int Q) {
  const int threads = planes * P * Q;
  my_kernel<<<(threads + kThreads - 1) / kThreads, kThreads>>>(x, y, planes, H, W, P, Q);
}
