// The gradient of an average pooling. Check it without a GPU:
//
//   python -m convlab.check FILE --like avg_pool2d_backward
//
//   dx[plane, h, v] = sum over the windows (p, q) that cover (h, v) of dy[plane, p, q] / averaged_over(a, p, q)
//
// device/device.h is the language: SHARED(float, tile, [16][16]) is shared memory, launch(...) a launch.
#include "device/device.h"
#include "geometry/avg_pool2d.h"

using namespace convlab;

constexpr int kThreads = 256;

// dy [planes, P, Q] -> dx [planes, H, W].  grid ceil(planes HW / 256), a thread an element
__global__ void __launch_bounds__(kThreads) my_kernel(AvgPool2d a, const float* dy, float* dx) {
  const Pool2d& g = a.window;
  const long long i = (long long)blockIdx.x * kThreads + threadIdx.x;
  if (i >= g.planes * g.H * g.W) return;
  const int v = int(i % g.W), h = int(i / g.W % g.H);
  const float* plane = dy + i / g.W / g.H * g.P * g.Q;
  const Range rows = windows_over(h, g.stride_h, g.pad_h, g.R, g.P),
              columns = windows_over(v, g.stride_w, g.pad_w, g.S, g.Q);

  float sum = 0;
  for (int p = rows.begin; p < rows.end; p++)
    for (int q = columns.begin; q < columns.end; q++) sum += plane[p * g.Q + q] / float(averaged_over(a, p, q));
  dx[i] = sum;
}

// What is checked. Pointers are to device memory; dx is not empty.
void avg_pool2d_backward(const AvgPool2d& a, const float* dy, float* dx, cudaStream_t stream) {
  launch(my_kernel, blocks_for(a.window.planes * a.window.H * a.window.W, kThreads), dim3(kThreads), 0, stream, a, dy,
         dx);
}
