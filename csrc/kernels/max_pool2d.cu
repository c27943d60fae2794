// Max pooling: forward, backward, and the gather that the second derivative needs.
//
//   forward   y[p,q] = max over taps (r, s) inside x of x[p*stride_h - pad_h + r*dilation_h, ...]; the first of equals
//             wins, NaN beats everything, and the winner r*S + s is remembered in one byte (int32 for windows of more
//             than 256 taps)
//   backward  dx[h,w] = sum of dy[p,q] over the windows whose winner is (h, w)
//   gather    y[p,q]  = x at the winner of window (p, q)
//   indices   torch's form of the winner: h*W + w, int64
//
// What it does    one thread an element of what is written. backward gathers from the windows that cover its element,
//                 so no two threads write the same element: no atomics, no zero-fill before, the same bits every time.
// What bounds it  memory: windows overlap in L1, so each tensor crosses the bus once, though with stride 2 forward's
//                 requests take twice the sectors that they need. A one-byte winner instead of an int64 index makes
//                 2x2/2 forward 5.25 bytes an input element instead of 7, backward 5.25 instead of 11 (float32).
// What is next    several outputs a thread: the index arithmetic of one output costs more than its four loads.
// What is counted  by the simulator; tools/kernel_notes.py writes it here, and says how to read it
//                              x     dy   winners   sectors   at least
//   LeNet S2    forward     1.00                       7.21       3.50
//   LeNet S2    backward           1.00      4.00      2.65       2.13
//   ResNet-50   forward     2.22                       7.37       3.72
//   ResNet-50   backward           1.00      8.89      2.06       1.46
#include "kernels/launchers.h"
#include "kernels/windows.h"

namespace convlab {
namespace {

constexpr int kThreads = 256;

struct Window {  // of one output element
  long long plane;
  int h0, w0;  // where tap (0, 0) lies; may be outside x
};

__device__ inline Window window_of(const Pool2d& g, long long i) {  // i = (plane, p, q)
  const int q = int(i % g.Q), p = int(i / g.Q % g.P);
  return {i / g.Q / g.P, p * g.stride_h - g.pad_h, q * g.stride_w - g.pad_w};
}

// The first tap that does not lie before x, in one dimension.
__device__ inline int first_tap(int start, int dilation) { return start < 0 ? (-start + dilation - 1) / dilation : 0; }

// x [planes, H, W] -> y, offsets [planes, P, Q].  grid ceil(planes PQ / 256)
template <class T, class Offset>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(Pool2d g, const T* __restrict__ x, T* __restrict__ y, Offset* __restrict__ offsets) {
  const long long i = (long long)blockIdx.x * kThreads + threadIdx.x;
  if (i >= g.planes * g.P * g.Q) return;
  const Window at = window_of(g, i);
  const T* xp = x + at.plane * g.H * g.W;
  const int r0 = first_tap(at.h0, g.dilation_h), s0 = first_tap(at.w0, g.dilation_w);

  acc_t<T> best = -INFINITY;
  int winner = r0 * g.S + s0;  // also of a window of nothing but -inf
  for (int r = r0; r < g.R && at.h0 + r * g.dilation_h < g.H; r++)
    for (int s = s0; s < g.S && at.w0 + s * g.dilation_w < g.W; s++) {
      const acc_t<T> value = acc_t<T>(xp[(at.h0 + r * g.dilation_h) * g.W + at.w0 + s * g.dilation_w]);
      if (value > best || value != value) {
        best = value;
        winner = r * g.S + s;
      }
    }
  y[i] = T(best);
  if (offsets) offsets[i] = Offset(winner);
}

// dy, offsets [planes, P, Q] -> dx [planes, H, W].  grid ceil(planes HW / 256)
template <class T, class Offset>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(Pool2d g, const T* __restrict__ dy, const Offset* __restrict__ offsets, T* __restrict__ dx) {
  const long long i = (long long)blockIdx.x * kThreads + threadIdx.x;  // (plane, h, w)
  if (i >= g.planes * g.H * g.W) return;
  const int w = int(i % g.W), h = int(i / g.W % g.H);
  const long long outputs = i / g.W / g.H * g.P * g.Q;

  acc_t<T> sum = 0;
  over_windows(g, h, w, [&](int tap, int output) {
    if (int(offsets[outputs + output]) == tap) sum += acc_t<T>(dy[outputs + output]);
  });
  dx[i] = T(sum);
}

// x [planes, H, W], offsets [planes, P, Q] -> y [planes, P, Q].  grid ceil(planes PQ / 256)
template <class T, class Offset>
__global__ void __launch_bounds__(kThreads)
    gather_kernel(Pool2d g, const T* __restrict__ x, const Offset* __restrict__ offsets, T* __restrict__ y) {
  const long long i = (long long)blockIdx.x * kThreads + threadIdx.x;
  if (i >= g.planes * g.P * g.Q) return;
  const Window at = window_of(g, i);
  const int h = at.h0 + int(offsets[i]) / g.S * g.dilation_h, w = at.w0 + int(offsets[i]) % g.S * g.dilation_w;
  y[i] = h < g.H && w < g.W ? x[at.plane * g.H * g.W + h * g.W + w] : T(0.0f);  // a window may hang over x altogether
}

// offsets -> indices [planes, P, Q].  grid ceil(planes PQ / 256)
template <class Offset>
__global__ void __launch_bounds__(kThreads)
    indices_kernel(Pool2d g, const Offset* __restrict__ offsets, long long* __restrict__ indices) {
  const long long i = (long long)blockIdx.x * kThreads + threadIdx.x;
  if (i >= g.planes * g.P * g.Q) return;
  const Window at = window_of(g, i);
  const int h = at.h0 + int(offsets[i]) / g.S * g.dilation_h, w = at.w0 + int(offsets[i]) % g.S * g.dilation_w;
  indices[i] = (long long)h * g.W + w;
}

// Calls f(type_tag<Offset>{}) with the type that offsets have for this window.
template <class F> void dispatch_offset(const Pool2d& g, F&& f) {
  if (offsets_fit_a_byte(g)) f(type_tag<unsigned char>{});
  else f(type_tag<int>{});
}

}  // namespace

void max_pool2d_forward(const Pool2d& g, DType dtype, const void* x, void* y, void* offsets, Stream stream) {
  dispatch(dtype, [&](auto tag) {
    dispatch_offset(g, [&](auto offset_tag) {
      using T = typename decltype(tag)::type;
      using Offset = typename decltype(offset_tag)::type;
      launch(forward_kernel<T, Offset>, blocks_for(g.planes * g.P * g.Q, kThreads), dim3(kThreads), 0, stream, g,
             static_cast<const T*>(x), static_cast<T*>(y), static_cast<Offset*>(offsets));
    });
  });
}

void max_pool2d_backward(const Pool2d& g, DType dtype, const void* dy, const void* offsets, void* dx, Stream stream) {
  dispatch(dtype, [&](auto tag) {
    dispatch_offset(g, [&](auto offset_tag) {
      using T = typename decltype(tag)::type;
      using Offset = typename decltype(offset_tag)::type;
      launch(backward_kernel<T, Offset>, blocks_for(g.planes * g.H * g.W, kThreads), dim3(kThreads), 0, stream, g,
             static_cast<const T*>(dy), static_cast<const Offset*>(offsets), static_cast<T*>(dx));
    });
  });
}

void max_pool2d_gather(const Pool2d& g, DType dtype, const void* x, const void* offsets, void* y, Stream stream) {
  dispatch(dtype, [&](auto tag) {
    dispatch_offset(g, [&](auto offset_tag) {
      using T = typename decltype(tag)::type;
      using Offset = typename decltype(offset_tag)::type;
      launch(gather_kernel<T, Offset>, blocks_for(g.planes * g.P * g.Q, kThreads), dim3(kThreads), 0, stream, g,
             static_cast<const T*>(x), static_cast<const Offset*>(offsets), static_cast<T*>(y));
    });
  });
}

void max_pool2d_indices(const Pool2d& g, const void* offsets, long long* indices, Stream stream) {
  dispatch_offset(g, [&](auto offset_tag) {
    using Offset = typename decltype(offset_tag)::type;
    launch(indices_kernel<Offset>, blocks_for(g.planes * g.P * g.Q, kThreads), dim3(kThreads), 0, stream, g,
           static_cast<const Offset*>(offsets), indices);
  });
}

}  // namespace convlab
