// A max pooling of one's own. Check it without a GPU:
//
//   python -m convlab.check FILE --like max_pool2d_forward
//
//   y[plane, p, q] = max over r, s of x[plane, p stride_h - pad_h + r dilation_h, q stride_w - pad_w + s dilation_w]
//
// Taps outside x do not take part; NaN wins. device/device.h is the language: SHARED(float, tile, [16][16]) is shared
// memory.
#include "device/device.h"
#include "geometry/pool2d.h"

using namespace convlab;

constexpr int kThreads = 256;

// x [planes, H, W] -> y [planes, P, Q].  grid ceil(planes PQ / 256), a thread an output
__global__ void __launch_bounds__(kThreads) my_kernel(Pool2d g, const float* x, float* y) {
  const long long i = (long long)blockIdx.x * kThreads + threadIdx.x;
  if (i >= g.planes * g.P * g.Q) return;
  const int q = int(i % g.Q), p = int(i / g.Q % g.P);
  const float* plane = x + i / g.Q / g.P * g.H * g.W;

  float best = -INFINITY;
  for (int r = 0; r < g.R; r++)
    for (int s = 0; s < g.S; s++) {
      const int h = p * g.stride_h - g.pad_h + r * g.dilation_h, v = q * g.stride_w - g.pad_w + s * g.dilation_w;
      if (h < 0 || h >= g.H || v < 0 || v >= g.W) continue;
      const float value = plane[h * g.W + v];
      if (value > best || value != value) best = value;
    }
  y[i] = best;
}

// What is checked. Pointers are to device memory; y is not empty.
void max_pool2d_forward(const Pool2d& g, const float* x, float* y, cudaStream_t stream) {
  launch(my_kernel, blocks_for(g.planes * g.P * g.Q, kThreads), dim3(kThreads), 0, stream, g, x, y);
}
