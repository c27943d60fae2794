// Average pooling, forward and backward.
//
//   y[p,q]  = sum over taps (r, s) inside x of x[p*stride_h - pad_h + r, q*stride_w - pad_w + s] / n(p, q)
//   dx[h,w] = sum over the windows (p, q) that cover (h, w) of dy[p,q] / n(p, q)
//
// with n(p, q) as averaged_over() in geometry/avg_pool2d.h says.
//
// What it does    pool2d.h says how threads share the work. backward gathers from the windows that cover its elements,
//                 so no two threads write the same element: no atomics, no zero-fill before, the same bits every time.
// What bounds it  memory: 2 x 2 / 2 in float32 moves 20 bytes an output and takes 50 to 105 instructions for it, where
//                 an H200 (4.3 TB/s, 31 thousand billion instructions a second) has time for 145. Any other window in
//                 NCHW loads its taps one by one, and where it is the whole plane, as at the end of a ResNet, a request
//                 takes a sector for each thread.
// What is next    windows of the whole plane: a warp a plane.
// What is counted  by the simulator; tools/kernel_notes.py writes it here, and says how to read it
//                              x     dy   sectors   at least
//   LeNet S2    forward     1.00             15.1       13.3
//   LeNet S2    backward           1.00      15.1       13.3
//   ResNet-20   forward     1.00             31.6       4.00
//   ResNet-20   backward           16.0      3.40       3.40
#include "kernels/launchers.h"
#include "kernels/pool2d.h"

namespace convlab {
namespace {

struct Averaged {  // over how many taps
  bool count_include_pad;
  long long divisor;

  template <class A> __device__ __forceinline__ A weight(const Pool2d& g, int p, int q) const {
    return A(1) / A(averaged_over({g, count_include_pad, divisor}, p, q));
  }
};

template <class A> struct Sum {
  static __device__ __forceinline__ A outside() { return 0; }  // changes nothing
  A value = 0;

  __device__ __forceinline__ void begin(int) {}
  __device__ __forceinline__ void start(A first) { value = first; }
  __device__ __forceinline__ void take(A other, int) { value += other; }
  __device__ __forceinline__ void take(const Sum& row, int) { value += row.value; }
};

template <class T> struct Forward {
  template <class A> using State = Sum<A>;
  T* y;
  Averaged over;

  template <class A> __device__ __forceinline__ A of(A x) const { return x; }
  template <class S>
  __device__ __forceinline__ void write(const Pool2d& g, int p, int q, long long i,
                                        const Sum<acc_t<T>> (&of)[S::together]) const {
    using A = acc_t<T>;
    Vector<T, S::together> out;
    const A weight = over.weight<A>(g, p, q);  // one for all: columns side by side are of whole windows of 2 x 2
    for (int k = 0; k < S::together; k++) {
      out.at[k] = T(of[k].value * weight);
    }
    store_vector(y + i, out);
  }
};

template <class T> struct Backward {
  template <class A> struct Given {
    A share;
    __device__ __forceinline__ void to(A& sum, int) const { sum += share; }
    __device__ __forceinline__ void unless(bool outside) { share = outside ? A(0) : share; }
  };
  const T* dy;
  Averaged over;

  template <int n, bool>
  __device__ __forceinline__ void load(const Pool2d& g, long long i, int p, int q, Given<acc_t<T>> (&given)[n]) const {
    using A = acc_t<T>;
    const auto loaded = load_vector<n>(dy + i);
    const A weight = over.weight<A>(g, p, q);  // one for all: columns side by side are of whole windows of 2 x 2
    for (int k = 0; k < n; k++) {
      given[k] = {A(loaded.at[k]) * weight};
    }
  }
};

// x [images, H, W, channels] -> y [images, P, Q, channels]
template <class T, class S>
__global__ void __launch_bounds__(kPoolThreads) forward_kernel(PoolWalk walk, Averaged over, const T* x, T* y) {
  pool_forward<S>(walk, x, Forward<T>{y, over});
}

// dy [images, P, Q, channels] -> dx [images, H, W, channels]
template <class T, class S>
__global__ void __launch_bounds__(kPoolThreads) backward_kernel(PoolWalk walk, Averaged over, const T* dy, T* dx) {
  pool_backward<S>(walk, dx, Backward<T>{dy, over});
}

constexpr int kMostKnown = 2;

}  // namespace

void avg_pool2d_forward(const AvgPool2d& a, int channels, DType dtype, const void* x, void* y, Stream stream) {
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch_pool<T, kMostKnown, true>(
        a.window, channels, aligned(kWidestAccess, x, y), stream,
        [](auto share) { return forward_kernel<T, decltype(share)>; }, Averaged{a.count_include_pad, a.divisor},
        static_cast<const T*>(x), static_cast<T*>(y));
  });
}

void avg_pool2d_backward(const AvgPool2d& a, int channels, DType dtype, const void* dy, void* dx, Stream stream) {
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch_pool<T, kMostKnown, false>(
        a.window, channels, aligned(kWidestAccess, dy, dx), stream,
        [](auto share) { return backward_kernel<T, decltype(share)>; }, Averaged{a.count_include_pad, a.divisor},
        static_cast<const T*>(dy), static_cast<T*>(dx));
  });
}

}  // namespace convlab
