// Average pooling, forward and backward.
//
//   y[p,q]  = sum over taps (r, s) inside x of x[p*stride_h - pad_h + r, q*stride_w - pad_w + s] / n(p, q)
//   dx[h,w] = sum over the windows (p, q) that cover (h, w) of dy[p,q] / n(p, q)
//
// with n(p, q) as averaged_over() in geometry/avg_pool2d.h says.
//
// What it does    one thread an element of what is written. backward gathers from the windows that cover its element,
//                 so no two threads write the same element: no atomics, no zero-fill before, the same bits every time.
// What bounds it  memory: the windows overlap in L1, so each tensor crosses the bus once; with stride 2 neighbouring
//                 threads load every other element, and a request takes twice the sectors it needs. Where a window is
//                 the whole plane, as at the end of a ResNet, each thread walks over a plane of its own, and a request
//                 takes a sector for each.
// What is next    several outputs a thread: their windows share rows, and one wide load feeds them all.
// What is counted  by the simulator; tools/kernel_notes.py writes it here, and says how to read it
//                              x     dy   sectors   at least
//   LeNet S2    forward     1.00             8.46       4.00
//   LeNet S2    backward           4.00      3.36       3.00
//   ResNet-20   forward     1.00             31.6       4.00
//   ResNet-20   backward           64.0      2.50       2.50
#include "device/device.h"
#include "kernels/launchers.h"

namespace convlab {
namespace {

constexpr int kThreads = 256;
constexpr int kBlocksAtOnce =
    4;  // a multiprocessor: allows 64 registers; left to itself, ptxas aims at fewer on sm_80 and spills

// x [planes, H, W] -> y [planes, P, Q].  grid ceil(planes PQ / 256)
template <class T>
__global__ void __launch_bounds__(kThreads) forward_kernel(AvgPool2d a, const T* __restrict__ x, T* __restrict__ y) {
  const Pool2d& g = a.window;
  const long long i = (long long)blockIdx.x * kThreads + threadIdx.x;  // (plane, p, q)
  if (i >= g.planes * g.P * g.Q) return;
  const int q = int(i % g.Q), p = int(i / g.Q % g.P);
  const T* xp = x + i / g.Q / g.P * g.H * g.W;  // 64-bit once a plane, 32-bit inside it
  const Range rows = covered_by(p, g.stride_h, g.pad_h, g.R, g.H),
              columns = covered_by(q, g.stride_w, g.pad_w, g.S, g.W);

  acc_t<T> sum = 0;
  for (int h = rows.begin; h < rows.end; h++)
    for (int w = columns.begin; w < columns.end; w++) sum += acc_t<T>(xp[h * g.W + w]);
  y[i] = T(sum / acc_t<T>(averaged_over(a, p, q)));
}

// dy [planes, P, Q] -> dx [planes, H, W].  grid ceil(planes HW / 256)
template <class T>
__global__ void __launch_bounds__(kThreads, kBlocksAtOnce)
    backward_kernel(AvgPool2d a, const T* __restrict__ dy, T* __restrict__ dx) {
  const Pool2d& g = a.window;
  const long long i = (long long)blockIdx.x * kThreads + threadIdx.x;  // (plane, h, w)
  if (i >= g.planes * g.H * g.W) return;
  const int w = int(i % g.W), h = int(i / g.W % g.H);
  const T* dyp = dy + i / g.W / g.H * g.P * g.Q;
  const Range rows = windows_over(h, g.stride_h, g.pad_h, g.R, g.P),
              columns = windows_over(w, g.stride_w, g.pad_w, g.S, g.Q);

  acc_t<T> sum = 0;
  for (int p = rows.begin; p < rows.end; p++)
    for (int q = columns.begin; q < columns.end; q++)
      sum += acc_t<T>(dyp[p * g.Q + q]) / acc_t<T>(averaged_over(a, p, q));
  dx[i] = T(sum);
}

}  // namespace

void avg_pool2d_forward(const AvgPool2d& a, DType dtype, const void* x, void* y, Stream stream) {
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(forward_kernel<T>, blocks_for(a.window.planes * a.window.P * a.window.Q, kThreads), dim3(kThreads), 0,
           stream, a, static_cast<const T*>(x), static_cast<T*>(y));
  });
}

void avg_pool2d_backward(const AvgPool2d& a, DType dtype, const void* dy, void* dx, Stream stream) {
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(backward_kernel<T>, blocks_for(a.window.planes * a.window.H * a.window.W, kThreads), dim3(kThreads), 0,
           stream, a, static_cast<const T*>(dy), static_cast<T*>(dx));
  });
}

}  // namespace convlab
