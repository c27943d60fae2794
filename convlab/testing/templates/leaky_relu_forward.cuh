// A leaky ReLU of one's own. Check it without a GPU:
//
//   python -m convlab.check FILE --like leaky_relu_forward
//
//   y = x > 0 ? x : x slope
//
// device/device.h is the language: SHARED(float, tile, [16][16]) is shared memory, launch(...) a launch.
#include "device/device.h"

using namespace convlab;

constexpr int kThreads = 256;

// x [elements] -> y [elements].  grid ceil(elements / 256)
__global__ void __launch_bounds__(kThreads) my_kernel(long long elements, float slope, const float* x, float* y) {
  const long long i = (long long)blockIdx.x * kThreads + threadIdx.x;
  if (i < elements) y[i] = x[i] > 0 ? x[i] : x[i] * slope;
}

// What is checked. Pointers are to device memory; there is at least one element.
void leaky_relu_forward(long long elements, double negative_slope, const float* x, float* y, cudaStream_t stream) {
  launch(my_kernel, blocks_for(elements, kThreads), dim3(kThreads), 0, stream, elements, float(negative_slope), x, y);
}
