// Leaky ReLU, ReLU and ReLU6, element by element. ReLU is not leaky ReLU with slope 0: -inf times 0 is NaN.
#include "cpu/activations/leaky_relu.h"
#include "cpu/simd/integer_lanes.h"

namespace convlab::CONVLAB_ISA {

// out[i] = f(in[i], ...), begin <= i < end
template <class T, class F, class... In>
CONVLAB_INLINE void each_element(T* out, int64_t begin, int64_t end, F f, const In*... in) {
  using A = acc_t<T>;
  constexpr int L = kLanes<A>;
  int64_t i = begin;
  for (; i + L <= end; i += L) store_as<A>(out + i, f(load_as<A>(in + i)...));
  if (i < end) store_some<A>(out + i, f(load_some<A>(in + i, int(end - i))...), int(end - i));
}

// positive[i] = x[i] > 0, where wanted: what backward has to know of x, in a quarter of its memory or less
template <class T>
void leaky_relu_forward(double slope, const T* x, T* y, uint8_t* positive, int64_t begin, int64_t end) {
  using A = acc_t<T>;
  using V = Vec<A>;
  const A s = A(slope);
  if (!positive) return each_element(y, begin, end, [s](V v) { return v > 0 ? v : v * s; }, x);
  constexpr int L = kLanes<A>;
  int64_t i = begin;
  for (; i + L <= end; i += L) {
    const V v = load_as<A>(x + i);
    store_as<A>(y + i, v > 0 ? v : v * s);
    store_integers<A>(positive + i, (Integers<A>)-(v > 0));
  }
  for (; i < end; i++) {
    const A v = A(x[i]);
    y[i] = T(v > 0 ? v : v * s);
    positive[i] = v > 0;
  }
}

template <class T>
void leaky_relu_backward(double slope, const T* dy, const uint8_t* positive, T* dx, int64_t begin, int64_t end) {
  using A = acc_t<T>;
  using V = Vec<A>;
  const A s = A(slope);
  constexpr int L = kLanes<A>;
  int64_t i = begin;
  for (; i + L <= end; i += L) {
    const V grad = load_as<A>(dy + i);
    store_as<A>(dx + i, load_integers<A>(positive + i) != 0 ? grad : grad * s);
  }
  for (; i < end; i++) dx[i] = T(positive[i] ? A(dy[i]) : A(dy[i]) * s);
}

template <class T> void relu_forward(const T* x, T* y, int64_t begin, int64_t end) {
  using V = Vec<acc_t<T>>;
  each_element(y, begin, end, [](V v) { return v <= 0 ? V{} : v; }, x);  // NaN stays
}

template <class T> void relu_backward(const T* dy, const T* y, T* dx, int64_t begin, int64_t end) {
  using V = Vec<acc_t<T>>;
  each_element(dx, begin, end, [](V grad, V v) { return v <= 0 ? V{} : grad; }, dy, y);
}

template <class T> void relu6_forward(const T* x, T* y, int64_t begin, int64_t end) {
  using A = acc_t<T>;
  using V = Vec<A>;
  const V most = broadcast<A>(6);
  each_element(  // NaN stays: these are the machine's maximum and minimum, which give their second operand then
      y, begin, end,
      [most](V v) {
        const V least = V{} > v ? V{} : v;
        return most < least ? most : least;
      },
      x);
}

template <class T> void relu6_backward(const T* dy, const T* y, T* dx, int64_t begin, int64_t end) {
  using A = acc_t<T>;
  using V = Vec<A>;
  each_element(dx, begin, end, [](V grad, V v) { return v <= 0 ? V{} : v >= A(6) ? V{} : grad; }, dy, y);
}

}  // namespace convlab::CONVLAB_ISA

CONVLAB_DEFINE(leaky_relu_forward, leaky_relu_forward)
CONVLAB_DEFINE(leaky_relu_backward, leaky_relu_backward)
CONVLAB_DEFINE(relu_forward, relu_forward)
CONVLAB_DEFINE(relu_backward, relu_backward)
CONVLAB_DEFINE(relu6_forward, relu6_forward)
CONVLAB_DEFINE(relu6_backward, relu6_backward)
