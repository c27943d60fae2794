// The gradient of an average pooling. Check it without a GPU:
//
//   python -m convlab.check FILE --like avg_pool2d_backward
//
//   dx[n, c, h, v] = sum over the windows (p, q) that cover (h, v) of dy[n, c, p, q] / size^2
//
// Zeros outside x count. The launcher may take more, or less: python -m convlab.check --forms --like
// avg_pool2d_backward lists what.
#include <cuda_runtime.h>

constexpr int kThreads = 256;

// dy [planes, P, Q] -> dx [planes, H, W].  grid ceil(planes HW / 256), a thread an element
__global__ void my_kernel(const float* dy, float* dx, int planes, int H, int W, int P, int Q, int size, int stride,
                          int pad) {
  const int i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= planes * H * W) return;
  const int v = i % W, h = i / W % H;
  const float* plane = dy + i / W / H * P * Q;

  float sum = 0;
  for (int r = 0; r < size; r++)
    for (int s = 0; s < size; s++) {
      const int p = h + pad - r, q = v + pad - s;  // times the stride
      if (p < 0 || q < 0 || p % stride || q % stride || p / stride >= P || q / stride >= Q) continue;
      sum += plane[p / stride * Q + q / stride];
    }
  dx[i] = sum / float(size * size);
}

// What is checked. Pointers are to device memory; dx is not empty.
void avg_pool2d_backward(const float* dy, float* dx, int N, int C, int H, int W, int size, int stride, int pad) {
  const int P = (H + 2 * pad - size) / stride + 1, Q = (W + 2 * pad - size) / stride + 1;
  const int threads = N * C * H * W;
  my_kernel<<<(threads + kThreads - 1) / kThreads, kThreads>>>(dy, dx, N * C, H, W, P, Q, size, stride, pad);
}
