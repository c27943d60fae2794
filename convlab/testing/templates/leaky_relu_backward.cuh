// The gradient of a leaky ReLU. Check it without a GPU:
//
//   python -m convlab.check FILE --like leaky_relu_backward
//
//   dx = x > 0 ? dy : dy slope
//
// device/device.h is the language: SHARED(float, tile, [16][16]) is shared memory, launch(...) a launch.
#include "device/device.h"

using namespace convlab;

constexpr int kThreads = 256;

// dy, x [elements] -> dx [elements].  grid ceil(elements / 256)
__global__ void __launch_bounds__(kThreads)
    my_kernel(long long elements, float slope, const float* dy, const float* x, float* dx) {
  const long long i = (long long)blockIdx.x * kThreads + threadIdx.x;
  if (i < elements) dx[i] = x[i] > 0 ? dy[i] : dy[i] * slope;
}

// What is checked. Pointers are to device memory; there is at least one element.
void leaky_relu_backward(long long elements, double negative_slope, const float* dy, const float* x, float* dx,
                         cudaStream_t stream) {
  launch(my_kernel, blocks_for(elements, kThreads), dim3(kThreads), 0, stream, elements, float(negative_slope), dy, x,
         dx);
}
