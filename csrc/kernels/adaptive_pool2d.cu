// Adaptive pooling, average and maximum, forward and backward: windows of several sizes, which geometry/adaptive.h has.
//
// What it does    one thread an element of what is written. backward gathers from the windows over its element, in their
//                 order: no atomics, no zero-fill before, the same bits every time.
// What bounds it  memory, where windows are small. Where they are a large part of the plane, each thread walks over rows
//                 of its own, and a request takes a sector for each.
// What is next    a warp a window, where windows have 32 elements or more.
// What is counted  by the simulator; tools/kernel_notes.py writes it here, and says how to read it
//                              x     dy   sectors   at least
//   LeNet C3    average     1.44             18.2       4.00
//   LeNet C3    average, backward          16.0      1.94       1.70
//   LeNet C3    maximum     1.62             17.9       4.19
//   LeNet C3    maximum, backward          1.00      1.94       1.75
//   ResNet-20   average     1.27             21.2       4.00
//   ResNet-20   average, backward          36.0      2.02       1.86
//   ResNet-20   maximum     1.34             21.0       4.10
//   ResNet-20   maximum, backward          1.00      1.97       1.78
#include "device/device.h"
#include "kernels/adaptive_pool2d.h"

namespace convlab {
namespace {

constexpr int kThreads = 256;

// Element i of [planes, rows, columns], and where its plane begins in a tensor of `elements` a plane
struct Element {
  int row, column;
  long long plane;
};
CONVLAB_HD inline Element element(long long i, int rows, int columns) {
  return {int(i / columns % rows), int(i % columns), i / columns / rows};
}

// x [planes, H, W] -> y [planes, P, Q].  grid ceil(planes PQ / 256)
template <class T>
__global__ void __launch_bounds__(kThreads) average_kernel(Adaptive g, const T* __restrict__ x, T* __restrict__ y) {
  const long long i = (long long)blockIdx.x * kThreads + threadIdx.x;
  if (i >= g.planes * g.P * g.Q) return;
  const Element e = element(i, g.P, g.Q);
  y[i] = adaptive_average(g, x + e.plane * g.H * g.W, e.row, e.column);
}

// dy [planes, P, Q] -> dx [planes, H, W].  grid ceil(planes HW / 256)
template <class T>
__global__ void __launch_bounds__(kThreads)
    average_backward_kernel(Adaptive g, const T* __restrict__ dy, T* __restrict__ dx) {
  const long long i = (long long)blockIdx.x * kThreads + threadIdx.x;
  if (i >= g.planes * g.H * g.W) return;
  const Element e = element(i, g.H, g.W);
  dx[i] = adaptive_average_gradient(g, dy + e.plane * g.P * g.Q, e.row, e.column);
}

// x [planes, H, W] -> y, indices [planes, P, Q].  grid ceil(planes PQ / 256)
template <class T>
__global__ void __launch_bounds__(kThreads)
    maximum_kernel(Adaptive g, const T* __restrict__ x, T* __restrict__ y, long long* __restrict__ indices) {
  const long long i = (long long)blockIdx.x * kThreads + threadIdx.x;
  if (i >= g.planes * g.P * g.Q) return;
  const Element e = element(i, g.P, g.Q);
  const T* const plane = x + e.plane * g.H * g.W;
  const int winner = adaptive_winner(g, plane, e.row, e.column);
  y[i] = plane[winner];
  indices[i] = winner;
}

// dy, indices [planes, P, Q] -> dx [planes, H, W].  grid ceil(planes HW / 256)
template <class T>
__global__ void __launch_bounds__(kThreads)
    maximum_backward_kernel(Adaptive g, const T* __restrict__ dy, const long long* __restrict__ indices,
                            T* __restrict__ dx) {
  const long long i = (long long)blockIdx.x * kThreads + threadIdx.x;
  if (i >= g.planes * g.H * g.W) return;
  const Element e = element(i, g.H, g.W);
  const long long first = e.plane * g.P * g.Q;
  dx[i] = adaptive_maximum_gradient(g, dy + first, indices + first, e.row, e.column);
}

}  // namespace

void adaptive_average(const Adaptive& g, DType dtype, const void* x, void* y, Stream stream) {
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(average_kernel<T>, blocks_for(g.planes * g.P * g.Q, kThreads), dim3(kThreads), 0, stream, g,
           static_cast<const T*>(x), static_cast<T*>(y));
  });
}

void adaptive_average_backward(const Adaptive& g, DType dtype, const void* dy, void* dx, Stream stream) {
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(average_backward_kernel<T>, blocks_for(g.planes * g.H * g.W, kThreads), dim3(kThreads), 0, stream, g,
           static_cast<const T*>(dy), static_cast<T*>(dx));
  });
}

void adaptive_maximum(const Adaptive& g, DType dtype, const void* x, void* y, void* indices, Stream stream) {
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(maximum_kernel<T>, blocks_for(g.planes * g.P * g.Q, kThreads), dim3(kThreads), 0, stream, g,
           static_cast<const T*>(x), static_cast<T*>(y), static_cast<long long*>(indices));
  });
}

void adaptive_maximum_backward(const Adaptive& g, DType dtype, const void* dy, const void* indices, void* dx,
                               Stream stream) {
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(maximum_backward_kernel<T>, blocks_for(g.planes * g.H * g.W, kThreads), dim3(kThreads), 0, stream, g,
           static_cast<const T*>(dy), static_cast<const long long*>(indices), static_cast<T*>(dx));
  });
}

}  // namespace convlab
