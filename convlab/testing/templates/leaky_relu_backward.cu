// The gradient of a leaky ReLU. Check it without a GPU:
//
//   python -m convlab.check FILE --like leaky_relu_backward
//
//   dx = x > 0 ? dy : dy slope
#include <cuda_runtime.h>

constexpr int kThreads = 256;

// dy, x [n] -> dx [n].  grid ceil(n / 256), a thread an element
__global__ void my_kernel(const float* dy, const float* x, float* dx, int n, float slope) {
  const int i = blockIdx.x * kThreads + threadIdx.x;
  if (i < n) dx[i] = x[i] > 0 ? dy[i] : dy[i] * slope;
}

// What is checked. Pointers are to device memory; there is at least one element.
void leaky_relu_backward(const float* dy, const float* x, float* dx, int n, float slope) {
  my_kernel<<<(n + kThreads - 1) / kThreads, kThreads>>>(dy, x, dx, n, slope);
}
