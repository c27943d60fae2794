// A PReLU of one's own. Check it without a GPU:
//
//   python -m convlab.check FILE --like prelu_forward
//
//   y[n, c, i] = x[n, c, i] > 0 ? x[n, c, i] : x[n, c, i] w[c]
//
// Of [N, C, H, W], inner is H W; a slope for all has one channel. device/device.h is the language: SHARED(float, tile,
// [16][16]) is shared memory, launch(...) a launch.
#include "device/device.h"
#include "geometry/by_channel.h"

using namespace convlab;

constexpr int kThreads = 256;

// x [outer, channels, inner], w [channels] -> y.  grid ceil(elements / 256), a thread an element
__global__ void __launch_bounds__(kThreads) my_kernel(ByChannel g, const float* x, const float* w, float* y) {
  const long long i = (long long)blockIdx.x * kThreads + threadIdx.x;
  if (i < g.outer * g.channels * g.inner) y[i] = x[i] > 0 ? x[i] : x[i] * w[i / g.inner % g.channels];
}

// What is checked. Pointers are to device memory; there is at least one element.
void prelu_forward(const ByChannel& g, const float* x, const float* w, float* y, cudaStream_t stream) {
  launch(my_kernel, blocks_for(g.elements(), kThreads), dim3(kThreads), 0, stream, g, x, w, y);
}
