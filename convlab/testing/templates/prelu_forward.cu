// A PReLU of one's own. Check it without a GPU:
//
//   python -m convlab.check FILE --like prelu_forward
//
//   y[n, c, i] = x[n, c, i] > 0 ? x[n, c, i] : x[n, c, i] w[c]
//
// Of [N, C, H, W], inner is H W; a slope for all has one channel.
#include <cuda_runtime.h>

constexpr int kThreads = 256;

// x [outer, channels, inner], w [channels] -> y.  grid ceil(elements / 256), a thread an element
__global__ void my_kernel(const float* x, const float* w, float* y, int elements, int channels, int inner) {
  const int i = blockIdx.x * kThreads + threadIdx.x;
  if (i < elements) y[i] = x[i] > 0 ? x[i] : x[i] * w[i / inner % channels];
}

// What is checked. Pointers are to device memory; there is at least one element.
void prelu_forward(const float* x, const float* w, float* y, int outer, int channels, int inner) {
  const int elements = outer * channels * inner;
  my_kernel<<<(elements + kThreads - 1) / kThreads, kThreads>>>(x, w, y, elements, channels, inner);
}
