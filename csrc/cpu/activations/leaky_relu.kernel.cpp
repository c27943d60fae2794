// Leaky ReLU, ReLU and ReLU6, element by element. ReLU is not leaky ReLU with slope 0: -inf times 0 is NaN.
#include "cpu/activations/leaky_relu.h"
#include "cpu/conv2d/block/ending.h"
#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace convlab::CONVLAB_ISA {

// out[i] = f(in[i], ...), begin <= i < end
template <class T, class F, class... In>
CONVLAB_INLINE void each_element(T* out, int64_t begin, int64_t end, F f, const In*... in) {
  using A = acc_t<T>;
  constexpr int L = kLanes<A>;
  int64_t i = begin;
#pragma GCC unroll 4
  for (; i + L <= end; i += L) store_as<A>(out + i, f(load_as<A>(in + i)...));
  if (i < end) store_some<A>(out + i, f(load_some<A>(in + i, int(end - i))...), int(end - i));
}

// positive[i] = x[i] > 0, where wanted: what backward has to know of x, in a quarter of its memory or less (below, in a
// bit an element)
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

// ---- the same, with a bit an element ----

// Lane l as bit l
template <class A> CONVLAB_INLINE Integers<A> lane_bits() {
  Integers<A> bits{};
#pragma GCC unroll 16
  for (int l = 0; l < kLanes<A>; l++) bits[l] = Integer<A>(1) << l;
  return bits;
}

template <class A> CONVLAB_INLINE unsigned where_positive(Vec<A> v) {
#if defined(__AVX512F__)
  if constexpr (sizeof(A) == 4) return _mm512_cmp_ps_mask((__m512)v, _mm512_setzero_ps(), _CMP_GT_OQ);
  else return _mm512_cmp_pd_mask((__m512d)v, _mm512_setzero_pd(), _CMP_GT_OQ);
#elif defined(__AVX2__)
  if constexpr (sizeof(A) == 4) return unsigned(_mm256_movemask_ps((__m256)(v > 0)));
  else return unsigned(_mm256_movemask_pd((__m256d)(v > 0)));
#elif defined(__SSE2__)
  if constexpr (sizeof(A) == 4) return unsigned(_mm_movemask_ps((__m128)(v > 0)));
  else return unsigned(_mm_movemask_pd((__m128d)(v > 0)));
#else
  const Integers<A> bits = v > 0 ? lane_bits<A>() : Integers<A>{};
  unsigned sum = 0;
  for (int l = 0; l < kLanes<A>; l++) sum += unsigned(bits[l]);
  return sum;
#endif
}

constexpr int kBits = 64;  // stored together: many small stores keep large ones waiting

template <class T>
void leaky_relu_forward_bits(double slope, const T* x, T* y, uint8_t* positive, int64_t begin, int64_t end) {
  using A = acc_t<T>;
  using V = Vec<A>;
  const A s = A(slope);
  int64_t i = begin;
  for (; i + kBits <= end; i += kBits) {
    uint64_t bits = 0;
#pragma GCC unroll 8
    for (int e = 0; e < kBits; e += kLanes<A>) {
      const V v = load_as<A>(x + i + e);
      store_as<A>(y + i + e, v > 0 ? v : v * s);
      bits |= uint64_t(where_positive<A>(v)) << e;
    }
    __builtin_memcpy(positive + i / 8, &bits, sizeof bits);  // little-endian, as all these machines are
  }
  for (; i < end; i++) {
    const A v = A(x[i]);
    y[i] = T(v > 0 ? v : v * s);
    if (i % 8 == 0) positive[i / 8] = 0;
    positive[i / 8] |= uint8_t((v > 0) << i % 8);
  }
}

template <class T>
void leaky_relu_backward_bits(double slope, const T* dy, const uint8_t* positive, T* dx, int64_t begin, int64_t end) {
  using A = acc_t<T>;
  using V = Vec<A>;
  const A s = A(slope);
  int64_t i = begin;
  for (; i + kBits <= end; i += kBits) {
    uint64_t bits;
    __builtin_memcpy(&bits, positive + i / 8, sizeof bits);
#pragma GCC unroll 8
    for (int e = 0; e < kBits; e += kLanes<A>) {
      const V grad = load_as<A>(dy + i + e);
      store_as<A>(dx + i + e, (integers<A>(int(bits >> e)) & lane_bits<A>()) != 0 ? grad : grad * s);
    }
  }
  for (; i < end; i++) dx[i] = T(positive[i / 8] >> i % 8 & 1 ? A(dy[i]) : A(dy[i]) * s);
}

template <class T> void relu_forward(const T* x, T* y, int64_t begin, int64_t end) {
  using V = Vec<acc_t<T>>;
  each_element(y, begin, end, [](V v) { return v <= 0 ? V{} : v; }, x);  // NaN stays
}

template <class T> void relu_backward(const T* dy, const T* y, T* dx, int64_t begin, int64_t end) {
  using V = Vec<acc_t<T>>;
  each_element(dx, begin, end, [](V grad, V v) { return only_where(~(v <= 0), grad); }, dy, y);
}

template <class T> void relu6_forward(const T* x, T* y, int64_t begin, int64_t end) {
  using A = acc_t<T>;
  using V = Vec<A>;
  each_element(y, begin, end, [most = broadcast<A>(6)](V v) { return clamped(v, most); }, x);
}

template <class T> void relu6_backward(const T* dy, const T* y, T* dx, int64_t begin, int64_t end) {
  using A = acc_t<T>;
  using V = Vec<A>;
  each_element(dx, begin, end, [](V grad, V v) { return only_where(~((v <= 0) | (v >= A(6))), grad); }, dy, y);
}

template <class T>
void add_activated(Activation activation, double slope, const T* t, T* x, int64_t begin, int64_t end) {
  using A = acc_t<T>;
  with_activation(activation, [&, s = A(slope)]<Activation activation>() __attribute__((always_inline)) {
    each_element(
        x, begin, end, [s](Vec<A> a, Vec<A> b) { return activated_as<activation, T>(rounded<T, A>(a + b), s); }, x, t);
  });
}

}  // namespace convlab::CONVLAB_ISA

CONVLAB_DEFINE(leaky_relu_forward, leaky_relu_forward)
CONVLAB_DEFINE(leaky_relu_backward, leaky_relu_backward)
CONVLAB_DEFINE(leaky_relu_forward_bits, leaky_relu_forward_bits)
CONVLAB_DEFINE(leaky_relu_backward_bits, leaky_relu_backward_bits)
CONVLAB_DEFINE(relu_forward, relu_forward)
CONVLAB_DEFINE(relu_backward, relu_backward)
CONVLAB_DEFINE(relu6_forward, relu6_forward)
CONVLAB_DEFINE(relu6_backward, relu6_backward)
CONVLAB_DEFINE(add_activated, add_activated)
