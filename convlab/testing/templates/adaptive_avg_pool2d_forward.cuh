// An adaptive average pooling of one's own. Check it without a GPU:
//
//   python -m convlab.check FILE --like adaptive_avg_pool2d_forward
//
//   y[plane, p, q] = the average of x[plane, h, v] with floor(p H / P) <= h < ceil((p + 1) H / P), and v alike
//
// device/device.h is the language: SHARED(float, tile, [16][16]) is shared memory, launch(...) a launch.
#include "device/device.h"
#include "geometry/adaptive.h"

using namespace convlab;

constexpr int kThreads = 256;

// x [planes, H, W] -> y [planes, P, Q].  grid ceil(planes PQ / 256), a thread an output
__global__ void __launch_bounds__(kThreads) my_kernel(Adaptive g, const float* x, float* y) {
  const long long i = (long long)blockIdx.x * kThreads + threadIdx.x;
  if (i >= g.planes * g.P * g.Q) return;
  const int q = int(i % g.Q), p = int(i / g.Q % g.P);
  const Range rows = adaptive_window(p, g.H, g.P), columns = adaptive_window(q, g.W, g.Q);
  const float* plane = x + i / g.Q / g.P * g.H * g.W;

  float sum = 0;
  for (int h = rows.begin; h < rows.end; h++)
    for (int v = columns.begin; v < columns.end; v++) sum += plane[h * g.W + v];
  y[i] = sum / float((rows.end - rows.begin) * (columns.end - columns.begin));
}

// What is checked. Pointers are to device memory; y is not empty.
void adaptive_avg_pool2d_forward(const Adaptive& g, const float* x, float* y, cudaStream_t stream) {
  launch(my_kernel, blocks_for(g.planes * g.P * g.Q, kThreads), dim3(kThreads), 0, stream, g, x, y);
}
