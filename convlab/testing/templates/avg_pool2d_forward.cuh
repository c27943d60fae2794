// An average pooling of one's own. Check it without a GPU:
//
//   python -m convlab.check FILE --like avg_pool2d_forward
//
//   y[plane, p, q] = (sum over r, s of x[plane, p stride_h - pad_h + r, q stride_w - pad_w + s]) / averaged_over(a, p, q)
//
// with zeros outside x. device/device.h is the language: SHARED(float, tile, [16][16]) is shared memory, launch(...) a
// launch.
#include "device/device.h"
#include "geometry/avg_pool2d.h"

using namespace convlab;

constexpr int kThreads = 256;

// x [planes, H, W] -> y [planes, P, Q].  grid ceil(planes PQ / 256), a thread an output
__global__ void __launch_bounds__(kThreads) my_kernel(AvgPool2d a, const float* x, float* y) {
  const Pool2d& g = a.window;
  const long long i = (long long)blockIdx.x * kThreads + threadIdx.x;
  if (i >= g.planes * g.P * g.Q) return;
  const int q = int(i % g.Q), p = int(i / g.Q % g.P);
  const float* plane = x + i / g.Q / g.P * g.H * g.W;

  float sum = 0;
  for (int r = 0; r < g.R; r++)
    for (int s = 0; s < g.S; s++) {
      const int h = p * g.stride_h - g.pad_h + r, v = q * g.stride_w - g.pad_w + s;
      if (h >= 0 && h < g.H && v >= 0 && v < g.W) sum += plane[h * g.W + v];
    }
  y[i] = sum / float(averaged_over(a, p, q));
}

// What is checked. Pointers are to device memory; y is not empty.
void avg_pool2d_forward(const AvgPool2d& a, const float* x, float* y, cudaStream_t stream) {
  launch(my_kernel, blocks_for(a.window.planes * a.window.P * a.window.Q, kThreads), dim3(kThreads), 0, stream, a, x,
         y);
}
