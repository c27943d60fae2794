// A block's ending: the activation and the max pooling behind a convolution, and their gradient.
//
//   finish   y[p,q] = max over r < R, s < S of activated(x[p R + r, q S + s]); the winner's r S + s and whether it passes
//            the gradient go to one byte
//   spread   dx[h,w] = dy of the window over (h, w) if that won, as its activation lets it pass; else 0
//
// What it does    windows of 2 x 2 as pooling does (pool2d.h): a thread makes those that lie in vectors of 16 bytes of x;
//                 of other windows, four rows of a column. Without pooling, it is an activation (elementwise.h).
// What bounds it  memory: it reads what the convolution wrote, and writes a pooled tensor and its bytes. Two passes of an
//                 activation and a pooling read and write the full size once more each way.
// What is next    to be the epilogue of more of the kernels that make x, which is then never written: small_filter and
//                 direct have it (kernels/block_ending.h). The gradient, in the loaders of dgrad and wgrad.
// What is counted  by the simulator; tools/kernel_notes.py writes it here, and says how to read it
//                              x      w     dy   workspace   sectors   at least   conflicts
//   LeNet C3    forward     4.59   7.00                         12.1       3.79        1.00
//   LeNet C3    backward    8.57   8.00   1.00        0.18      9.61       3.28        1.00
//   ResNet-20   forward     1.00   1.00               6.27      13.1       9.31        1.01
//   ResNet-20   backward    1.00   1.00   1.00        16.2      11.5       8.49        1.01
#include "device/device.h"
#include "kernels/conv2d_block.h"
#include "kernels/elementwise.h"
#include "kernels/pool2d.h"

namespace convlab {

template <class T, Activation kActivation> struct Activate {
  using A = acc_t<T>;
  A slope;
  __device__ __forceinline__ A operator()(A x) const {  // as T has it: of these, a product alone needs rounding
    const A y = activated(kActivation, slope, x);
    return kActivation == Activation::leaky_relu ? A(T(y)) : y;
  }
  __device__ __forceinline__ unsigned char kept(A x) const { return passes(kActivation, x) ? kPasses : 0; }
};

template <class A> struct HoldBack {
  Activation activation;
  A slope;
  __device__ __forceinline__ A operator()(A dy, unsigned char passes) const {
    return passes & kPasses ? dy : held_back(activation, slope, dy);
  }
};

namespace {

// An element as its activation makes it, and the bit of whether that passes the gradient
template <class T> struct Activated {
  acc_t<T> value;
  int passes;
};

// The largest of activated elements, their first tap where all are -inf, and its byte
template <class T, Activation kActivation> struct Largest {
  using A = acc_t<T>;
  static constexpr int kLeast = kActivation == Activation::none ? kPasses : 0;  // of -inf
  A value = -INFINITY;
  int byte = kLeast;

  __device__ __forceinline__ void begin(int first) { value = -INFINITY, byte = first + kLeast; }
  __device__ __forceinline__ void start(const Activated<T>& first) { value = first.value, byte = first.passes; }
  __device__ __forceinline__ void take(A other, int of) {
    if (other > value || other != other) value = other, byte = of;
  }
  __device__ __forceinline__ void take(const Activated<T>& x, int tap) { take(x.value, x.passes + tap); }
  __device__ __forceinline__ void take(const Largest& row, int of) { take(row.value, row.byte + of); }
};

template <class T, Activation kActivation> struct Finish {
  template <class A> using State = Largest<T, kActivation>;
  Activate<T, kActivation> activate;
  T* y;
  unsigned char* winners;  // or null

  __device__ __forceinline__ Activated<T> of(acc_t<T> x) const { return {activate(x), activate.kept(x)}; }
  template <class S>
  __device__ __forceinline__ void write(const Pool2d&, int, int, long long i,
                                        const Largest<T, kActivation> (&of)[S::together]) const {
    Vector<T, S::together> out;
    Vector<unsigned char, S::together> won;
    for (int k = 0; k < S::together; k++) out.at[k] = T(of[k].value), won.at[k] = (unsigned char)(of[k].byte);
    store_vector(y + i, out);
    if (winners) store_vector(winners + i, won);
  }
};

template <class T> struct Spread {
  template <class A> struct Given {
    A dy;
    unsigned word, mask;  // where the winner's tap is, and in which bits: nothing is shifted to compare it
    __device__ __forceinline__ void to(A& dx, int tap) const {  // no window but this one has that element
      if (((word ^ (unsigned(tap) * (mask & -mask))) & mask) == 0) dx = dy;
    }
    __device__ __forceinline__ void unless(bool outside) { word = outside ? ~0u : word; }  // no tap is all ones
  };
  HoldBack<acc_t<T>> hold_back;
  const T* dy;
  const unsigned char* winners;

  template <int n, bool>
  __device__ __forceinline__ void load(const Pool2d&, long long i, int, int, Given<acc_t<T>> (&given)[n]) const {
    const auto loaded = load_vector<n>(dy + i);
    const auto won = load_vector<n>(winners + i);
    unsigned words[(n + 3) / 4] = {};
    memcpy(words, &won, sizeof won);
    for (int k = 0; k < n; k++) {
      const unsigned word = words[k / 4];
      given[k] = {hold_back(acc_t<T>(loaded.at[k]), (word >> k % 4 * 8) & 0xff), word, (kPasses - 1u) << k % 4 * 8};
    }
  }
};

// x [planes, H, W] -> y, winners [planes, P, Q]
template <class T, Activation kActivation, class S>
__global__ void __launch_bounds__(kPoolThreads)
    finish_kernel(PoolWalk walk, Activate<T, kActivation> activate, const T* x, T* y, unsigned char* winners) {
  pool_forward<S>(walk, x, Finish<T, kActivation>{activate, y, winners});
}

// dy, winners [planes, P, Q] -> dx [planes, H, W]
template <class T, class S>
__global__ void __launch_bounds__(kPoolThreads)
    spread_kernel(PoolWalk walk, HoldBack<acc_t<T>> hold_back, const T* dy, const unsigned char* winners, T* dx) {
  pool_backward<S>(walk, dx, Spread<T>{hold_back, dy, winners});
}

// Calls f(Share) with the best for windows that lie side by side. vectors: whether all tensors allow them
template <class T, bool kForward, class F> void with_windows(const Pool2d& g, bool vectors, const F& f) {
  constexpr int n = kWidestAccess / int(sizeof(T));
  if (vectors && g.R == 2 && g.S == 2 && (across<2, n, kForward>(g, f) || across<2, 2, kForward>(g, f))) return;
  f(Share<0, 4, 1, 1>{});
}

template <class F> void with_activation(Activation activation, const F& f) {
  if (activation == Activation::none) f(std::integral_constant<Activation, Activation::none>{});
  if (activation == Activation::relu) f(std::integral_constant<Activation, Activation::relu>{});
  if (activation == Activation::leaky_relu) f(std::integral_constant<Activation, Activation::leaky_relu>{});
  if (activation == Activation::relu6) f(std::integral_constant<Activation, Activation::relu6>{});
}

}  // namespace

void block_finish(const Ending& e, const Pool2d& g, DType dtype, const void* x, void* y, void* winners, Stream stream) {
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    with_activation(e.activation, [&](auto activation) {
      const Activate<T, activation()> activate{acc_t<T>(e.slope)};
      if (g.R * g.S == 1) return unary<T, unsigned char>(activate, g.planes * g.H * g.W, x, y, winners, stream);
      with_windows<T, true>(g, aligned(kWidestAccess, x, y, winners), [&](auto share) {
        using S = decltype(share);
        launch_walk<S, true>(finish_kernel<T, activation(), S>, g, 1, stream, activate, static_cast<const T*>(x),
                             static_cast<T*>(y), static_cast<unsigned char*>(winners));
      });
    });
  });
}

void block_spread(const Ending& e, const Pool2d& g, DType dtype, const void* dy, const void* winners, void* dx,
                  Stream stream) {
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const HoldBack<acc_t<T>> hold_back{e.activation, acc_t<T>(e.slope)};
    if (g.R * g.S == 1) return binary<T, unsigned char>(hold_back, g.planes * g.H * g.W, dy, winners, dx, stream);
    with_windows<T, false>(g, aligned(kWidestAccess, dy, winners, dx), [&](auto share) {
      using S = decltype(share);
      launch_walk<S, false>(spread_kernel<T, S>, g, 1, stream, hold_back, static_cast<const T*>(dy),
                            static_cast<const unsigned char*>(winners), static_cast<T*>(dx));
    });
  });
}

}  // namespace convlab
