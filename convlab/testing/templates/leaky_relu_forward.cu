// A leaky ReLU of one's own. Check it without a GPU:
//
//   python -m convlab.check FILE --like leaky_relu_forward
//
//   y = x > 0 ? x : x slope
#include <cuda_runtime.h>

constexpr int kThreads = 256;

// x [n] -> y [n].  grid ceil(n / 256), a thread an element
__global__ void my_kernel(const float* x, float* y, int n, float slope) {
  const int i = blockIdx.x * kThreads + threadIdx.x;
  if (i < n) y[i] = x[i] > 0 ? x[i] : x[i] * slope;
}

// What is checked. Pointers are to device memory; there is at least one element.
void leaky_relu_forward(const float* x, float* y, int n, float slope) {
  my_kernel<<<(n + kThreads - 1) / kThreads, kThreads>>>(x, y, n, slope);
}
