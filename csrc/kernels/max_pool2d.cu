// Max pooling: forward, backward, and the gather that the second derivative needs.
//
//   forward   y[p,q] = max over taps (r, s) inside x of x[p*stride_h - pad_h + r*dilation_h, ...]; the first of equals
//             wins, NaN beats everything, and the winner r*S + s is remembered in one byte (int32 for windows of more
//             than 256 taps)
//   backward  dx[h,w] = sum of dy[p,q] over the windows whose winner is (h, w)
//   gather    y[p,q]  = x at the winner of window (p, q)
//   indices   torch's form of the winner: h*W + w, int64
//
// What it does    pool2d.h says how threads share the work. backward gathers from the windows that cover its elements,
//                 so no two threads write the same element: no atomics, no zero-fill before, the same bits every time.
// What bounds it  memory: a one-byte winner instead of an int64 index makes 2x2/2 forward 5.25 bytes an input element
//                 instead of 7, backward 5.25 instead of 11 (float32). An H200 moves 4.3 TB/s and issues 132 x 4 x 32
//                 instructions of a thread at 1.83 GHz: 7.2 for each byte. These kernels take 2 to 3.7 for a byte of
//                 float32, and 2.6 to 4.8 of 16 bits, 3 x 3 the most (tools/bytes_moved.py): issue takes 0.3 to 0.7 of
//                 the time.
// 16 bits         forward in windows of 3 x 3 compares integers made of values and taps (max_pool2d_16bit.h); where the
//                 largest is a zero, it is +0.
// What is next    3 x 3 / 2 in 16 bits: 4.7 instructions a byte.
// What is counted  by the simulator; tools/kernel_notes.py writes it here, and says how to read it
//                              x     dy   winners   sectors   at least
//   LeNet S2    forward     1.00                       11.9       10.5
//   LeNet S2    backward           1.00      1.00      10.1       8.95
//   ResNet-50   forward     1.13                       8.00       7.76
//   ResNet-50   backward           2.25      2.25      8.51       6.81
#include "kernels/launchers.h"
#include "kernels/max_pool2d_16bit.h"
#include "kernels/pool2d.h"

namespace convlab {
namespace {

// Winners of windows, a byte or, of more than 256 taps, an int32 each. kBytes: known to be bytes
struct Winners {
  void* data;
  bool bytes;

  __device__ __forceinline__ int load(long long i) const {
    return bytes ? static_cast<const unsigned char*>(data)[i] : static_cast<const int*>(data)[i];
  }
  // n of them in words, as they lie: the first is the lowest byte. Of an int32, n is 1.
  template <int n, bool kBytes>
  __device__ __forceinline__ void load(long long i, unsigned (&words)[(n + 3) / 4]) const {
    if (kBytes || bytes) {
      const auto loaded = load_vector<n>(static_cast<const unsigned char*>(data) + i);
      words[0] = 0;
      memcpy(words, &loaded, sizeof loaded);
    } else {
      words[0] = unsigned(static_cast<const int*>(data)[i]);
    }
  }
  template <bool kBytes, int n>
  __device__ __forceinline__ void store(long long i, const Vector<unsigned char, n>& low, int tap) const {
    if (kBytes || bytes) store_vector(static_cast<unsigned char*>(data) + i, low);
    else static_cast<int*>(data)[i] = tap;
  }
};

template <class A> struct Largest {
  static __device__ __forceinline__ A outside() { return -INFINITY; }  // changes nothing
  A value = -INFINITY;
  int tap = 0;

  // The first tap wins among nothing but -inf, too. The value again: of an array of arrays, nvcc 13.0 gives the members
  // of the first array alone their initial values.
  __device__ __forceinline__ void begin(int first) { value = outside(), tap = first; }
  __device__ __forceinline__ void start(A first) { value = first; }  // of a row, whose tap is 0
  __device__ __forceinline__ void take(A other, int of) {
    if (other > value || other != other) value = other, tap = of;
  }
  __device__ __forceinline__ void take(const Largest& row, int of) { take(row.value, of + row.tap); }
};

template <class T> struct Forward {
  template <class A> using State = Largest<A>;
  T* y;
  Winners winners;

  template <class A> __device__ __forceinline__ A of(A x) const { return x; }
  template <class S>
  __device__ __forceinline__ void write(const Pool2d&, int, int, long long i,
                                        const Largest<acc_t<T>> (&of)[S::together]) const {
    Vector<T, S::together> out;
    Vector<unsigned char, S::together> taps;
    for (int k = 0; k < S::together; k++) out.at[k] = T(of[k].value), taps.at[k] = (unsigned char)(of[k].tap);
    store_vector(y + i, out);
    if (winners.data) winners.store<S::window || S::together != 1>(i, taps, of[0].tap);
  }
};

template <class T> struct Backward {
  template <class A> struct Given {
    A dy;
    unsigned word, mask;  // where the winner is, and in which of its bytes: nothing is shifted to compare it
    __device__ __forceinline__ void to(A& sum, int tap) const {
      if (((word ^ (unsigned(tap) * (mask & -mask))) & mask) == 0) sum += dy;
    }
    __device__ __forceinline__ void unless(bool outside) { word = outside ? ~0u : word; }  // no tap is all ones
  };
  const T* dy;
  Winners winners;

  template <int n, bool kBytes>
  __device__ __forceinline__ void load(const Pool2d&, long long i, int, int, Given<acc_t<T>> (&given)[n]) const {
    unsigned words[(n + 3) / 4];
    winners.load<n, kBytes>(i, words);
    const auto loaded = load_vector<n>(dy + i);
    for (int k = 0; k < n; k++) given[k] = {acc_t<T>(loaded.at[k]), words[k / 4], n == 1 ? ~0u : 0xffu << k % 4 * 8};
  }
};

// x [images, H, W, channels] -> y, offsets [images, P, Q, channels]
template <class T, class S>
__global__ void __launch_bounds__(kPoolThreads) forward_kernel(PoolWalk walk, const T* x, T* y, Winners offsets) {
  if constexpr (S::window == 3 && sizeof(T) == 2)
    max_pool_16bit<S>(walk, x, y, static_cast<unsigned char*>(offsets.data));
  else pool_forward<S>(walk, x, Forward<T>{y, offsets});
}

// dy, offsets [images, P, Q, channels] -> dx [images, H, W, channels]
template <class T, class S>
__global__ void __launch_bounds__(kPoolThreads) backward_kernel(PoolWalk walk, const T* dy, Winners offsets, T* dx) {
  pool_backward<S>(walk, dx, Backward<T>{dy, offsets});
}

// Calls f(i, image, h, w) for the outputs of a thread, with where their winners lie in x
template <class S, class F>
__device__ __forceinline__ void each_winner(const PoolWalk& walk, const Winners& offsets, const F& f) {
  const PoolPiece at = walk.piece<S>();
  if (at.image >= walk.images) return;
  const Pool2d& g = walk.g;
  int taps[S::rows];
#pragma unroll
  for (int o = 0; o < S::rows; o++)
    if (o < walk.rows && at.row + o < g.P) taps[o] = offsets.load(walk.output(at, at.row + o));
#pragma unroll
  for (int o = 0; o < S::rows; o++)
    if (o < walk.rows && at.row + o < g.P) {
      const int r = int(walk.S.quotient(unsigned(taps[o]))), s = taps[o] - r * g.S;
      f(walk.output(at, at.row + o), (at.row + o) * g.stride_h - g.pad_h + r * g.dilation_h,
        at.column * g.stride_w - g.pad_w + s * g.dilation_w, at);
    }
}

using Single = Share<0, 4, 1, 1>;

// x [images, H, W, channels], offsets [images, P, Q, channels] -> y [images, P, Q, channels]. T: any type of that size
template <class T>
__global__ void __launch_bounds__(kPoolThreads)
    gather_kernel(PoolWalk walk, const T* __restrict__ x, Winners offsets, T* __restrict__ y) {
  each_winner<Single>(walk, offsets, [&](long long i, int h, int w, const PoolPiece& at) {
    const Pool2d& g = walk.g;
    // a window may hang over x altogether, and offsets are the caller's data
    const bool inside = unsigned(h) < unsigned(g.H) && unsigned(w) < unsigned(g.W);
    y[i] = inside ? x[((at.image * g.H + h) * g.W + w) * walk.channels + at.channel] : T(0.0f);
  });
}

// offsets -> indices [images, P, Q, channels]
__global__ void __launch_bounds__(kPoolThreads)
    indices_kernel(PoolWalk walk, Winners offsets, long long* __restrict__ indices) {
  each_winner<Single>(walk, offsets,
                      [&](long long i, int h, int w, const PoolPiece&) { indices[i] = (long long)h * walk.g.W + w; });
}

Winners winners_of(const Pool2d& g, const void* offsets) { return {const_cast<void*>(offsets), offsets_fit_a_byte(g)}; }

constexpr int kMostKnown = 3;

}  // namespace

void max_pool2d_forward(const Pool2d& g, int channels, DType dtype, const void* x, void* y, void* offsets,
                        Stream stream) {
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const bool vectors = offsets_fit_a_byte(g) && aligned(kWidestAccess, x, y, offsets);
    launch_pool<T, kMostKnown, true>(
        g, channels, vectors, stream, [](auto share) { return forward_kernel<T, decltype(share)>; },
        static_cast<const T*>(x), static_cast<T*>(y), winners_of(g, offsets));
  });
}

void max_pool2d_backward(const Pool2d& g, int channels, DType dtype, const void* dy, const void* offsets, void* dx,
                         Stream stream) {
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const bool vectors = offsets_fit_a_byte(g) && aligned(kWidestAccess, dy, offsets, dx);
    launch_pool<T, kMostKnown, false>(
        g, channels, vectors, stream, [](auto share) { return backward_kernel<T, decltype(share)>; },
        static_cast<const T*>(dy), winners_of(g, offsets), static_cast<T*>(dx));
  });
}

void max_pool2d_gather(const Pool2d& g, int channels, DType dtype, const void* x, const void* offsets, void* y,
                       Stream stream) {
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    dim3 grid;
    const PoolWalk walk = walk_of<Single>(g, channels, true, grid);
    launch(gather_kernel<T>, grid, dim3(kPoolThreads), 0, stream, walk, static_cast<const T*>(x),
           winners_of(g, offsets), static_cast<T*>(y));
  });
}

void max_pool2d_indices(const Pool2d& g, int channels, const void* offsets, long long* indices, Stream stream) {
  dim3 grid;
  const PoolWalk walk = walk_of<Single>(g, channels, true, grid);
  launch(indices_kernel, grid, dim3(kPoolThreads), 0, stream, walk, winners_of(g, offsets), indices);
}

}  // namespace convlab
