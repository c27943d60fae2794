// Batch normalization in training: a slice's sums, and the gradient of its elements. Memory bounds all of it.
#include "cpu/norm/batch_norm_train.h"

#include "cpu/channel_rows.h"
#include "cpu/conv2d/block/ending.h"

namespace convlab::CONVLAB_ISA {

constexpr int kAtOnce = 4;           // vectors: sums that do not wait for one another
constexpr int64_t kInFloat = 8192;  // elements of a row, whose sums are then added up in double
constexpr int64_t kPixels = 128;    // of which sums are made before they are added to the others'

// terms(OfChannels) gives add(sums, i, lanes), which adds the terms of the elements from i on to K sums

// Channels side by side, U vectors of them
template <int K, int U, class A, class Terms>
CONVLAB_INLINE void add_pixels(const ByChannel& g, const Slice& s, int64_t c, int lanes, const Terms& terms,
                               A* const (&to)[K]) {
  constexpr int L = kLanes<A>;
  for (int64_t begin = s.outer0; begin < s.outer1; begin += kPixels) {
    const int64_t end = s.outer1 - begin > kPixels ? begin + kPixels : s.outer1;
    Vec<A> sums[U][K] = {};
    [&]<int... I>(indices<I...>) __attribute__((always_inline)) {
      const decltype(terms(OfChannels<A>{})) add[] = {terms(OfChannels<A>{true, c + I * L, lanes})...};
      for (int64_t i = begin * g.channels + c; i < end * g.channels; i += g.channels)
        (add[I](sums[I], i + I * L, lanes), ...);
    }(indices_to<U>());
#pragma GCC unroll 4
    for (int u = 0; u < U; u++)
#pragma GCC unroll 2
      for (int k = 0; k < K; k++) {
        A* const total = to[k] + c + u * L;
        store_some<A>(total, begin == s.outer0 ? sums[u][k] : sums[u][k] + load_some<A>(total, lanes), lanes);
      }
  }
}

template <class A> CONVLAB_INLINE Integers<A> lane_numbers() {
  Integers<A> numbers{};
#pragma GCC unroll 16
  for (int l = 0; l < kLanes<A>; l++) numbers[l] = l;
  return numbers;
}

template <class A> CONVLAB_INLINE A lane_sum(Vec<A> v) {
  A lanes[kLanes<A>];
  store<A>(lanes, v);
#pragma GCC unroll 4
  for (int half = kLanes<A> / 2; half > 0; half /= 2)
#pragma GCC unroll 8
    for (int l = 0; l < half; l++) lanes[l] += lanes[l + half];
  return lanes[0];
}

// A channel of one image
template <int K, class A, class Terms>
CONVLAB_INLINE void add_row(const ByChannel& g, int64_t outer, int64_t c, const Terms& terms, A* const (&to)[K]) {
  constexpr int L = kLanes<A>;
  const auto add = terms(OfChannels<A>{false, c, L});
  const int64_t begin = (outer * g.channels + c) * g.inner, end = begin + g.inner;
  double total[K] = {};
  for (int64_t i = begin; i < end;) {
    const int64_t until = end - i > kInFloat ? i + kInFloat : end;
    Vec<A> sums[kAtOnce][K] = {};
    for (; i + kAtOnce * L <= until; i += kAtOnce * L)
#pragma GCC unroll 4
      for (int u = 0; u < kAtOnce; u++) add(sums[u], i + u * L, L);
    for (; i + L <= until; i += L) add(sums[0], i, L);
    if (const int lanes = int(until - i)) {
      Vec<A> last[K] = {};
      add(last, i, lanes);
#pragma GCC unroll 2
      for (int k = 0; k < K; k++) sums[1][k] += only_where(lane_numbers<A>() < Integer<A>(lanes), last[k]);
    }
    i = until;
#pragma GCC unroll 2
    for (int k = 0; k < K; k++) total[k] += double(lane_sum<A>((sums[0][k] + sums[1][k]) + (sums[2][k] + sums[3][k])));
  }
  for (int k = 0; k < K; k++) to[k][c] = A(total[k]);
}

template <int K, class A, class Terms>
CONVLAB_INLINE void add_up(const ByChannel& g, const Slice& s, const Terms& terms, A* const (&to)[K]) {
  constexpr int L = kLanes<A>;
  if (g.inner == 1) {
    int64_t c = s.channel0;
    for (; c + kAtOnce * L <= s.channel1; c += kAtOnce * L) add_pixels<K, kAtOnce>(g, s, c, L, terms, to);
    for (; c < s.channel1; c += L) add_pixels<K, 1>(g, s, c, s.channel1 - c < L ? int(s.channel1 - c) : L, terms, to);
    return;
  }
  for (int64_t c = s.channel0; c < s.channel1; c++) add_row<K>(g, s.outer0, c, terms, to);
}

template <class A> void batch_statistics(const ByChannel& g, const Slice& s, const A* x, A* mean, A* rest, A* squares) {
  const A count = A((s.outer1 - s.outer0) * g.inner);
  const auto both = [&](const Slice& s) __attribute__((always_inline)) {
    add_up<1, A>(g, s,
                 [&](OfChannels<A>) __attribute__((always_inline)) {
                   return [x](auto& sums, int64_t i, int lanes)
                              __attribute__((always_inline)) { sums[0] += load_some<A>(x + i, lanes); };
                 },
                 {mean});
    for (int64_t c = s.channel0; c < s.channel1; c++) mean[c] /= count;
    add_up<2, A>(g, s,
                 [&](OfChannels<A> of) __attribute__((always_inline)) {
                   return [x, at = of(mean)](auto& sums, int64_t i, int lanes) __attribute__((always_inline)) {
                     const Vec<A> apart = load_some<A>(x + i, lanes) - at;
                     sums[0] += apart, sums[1] += apart * apart;
                   };
                 },
                 {rest, squares});
    for (int64_t c = s.channel0; c < s.channel1; c++) squares[c] -= rest[c] * rest[c] / count, rest[c] /= count;
  };
  if (g.inner == 1) return both(s);
  for (int64_t c = s.channel0; c < s.channel1; c++) both({s.outer0, s.outer1, c, c + 1});
}

template <Activation activation, class A> CONVLAB_INLINE Integers<A> passes(Vec<A> z) {
  if constexpr (activation == Activation::relu) return Integers<A>(~(z <= 0));
  else if constexpr (activation == Activation::relu6) return Integers<A>(~((z <= 0) | (z >= A(6))));
  else return Integers<A>(z > 0);
}

template <class A>
void batch_norm_grad_sums(const Normalization& n, const Slice& s, const A* scale, const A* shift, const A* mean,
                          const A* dy, const A* x, A* sums, A* products) {
  with_activation(n.activation, [&, slope = A(n.slope)]<Activation activation>() {
    add_up<2, A>(n.g, s,
                 [&](OfChannels<A> of) __attribute__((always_inline)) {
                   return [=, by = of(scale), plus = of(shift), at = of(mean)](auto& sums, int64_t i, int lanes)
                              __attribute__((always_inline)) {
                                const Vec<A> v = load_some<A>(x + i, lanes), z = v * by + plus,
                                             g = passed<activation, A>(load_some<A>(dy + i, lanes),
                                                                       passes<activation, A>(z), slope);
                                sums[0] += g, sums[1] += g * (v - at);
                              };
                 },
                 {sums, products});
  });
}

template <class A>
void batch_norm_dgrad(const Normalization& n, const Slice& s, const A* scale, const A* shift, const A* mean,
                      const A* by, const A* plus, const A* dy, const A* x, A* dx) {
  with_activation(n.activation, [&, slope = A(n.slope)]<Activation activation>() {
    struct Terms {
      Vec<A> scale, shift, mean, by, plus;
    };
    // by value: a store to dx might change what is captured by reference, as far as a compiler knows
    const auto row = [=](bool side_by_side, int64_t first, int64_t channel,
                         int64_t length) __attribute__((always_inline)) {
      over_row<A>(
          side_by_side, channel, length,
          [=](const OfChannels<A>& of)
              __attribute__((always_inline)) { return Terms{of(scale), of(shift), of(mean), of(by), of(plus)}; },
          [=](int64_t i, const Terms& t, int lanes) __attribute__((always_inline)) {
            const Vec<A> v = load_some<A>(x + first + i, lanes), z = v * t.scale + t.shift,
                         g = passed<activation, A>(load_some<A>(dy + first + i, lanes), passes<activation, A>(z),
                                                   slope);
            store_some<A>(dx + first + i, g * t.scale + ((v - t.mean) * t.by + t.plus), lanes);
          });
    };
    if (n.g.inner == 1)
      for (int64_t p = s.outer0; p < s.outer1; p++)
        row(true, p * n.g.channels + s.channel0, s.channel0, s.channel1 - s.channel0);
    else
      for (int64_t c = s.channel0; c < s.channel1; c++)
        row(false, (s.outer0 * n.g.channels + c) * n.g.inner, c, n.g.inner);
  });
}

}  // namespace convlab::CONVLAB_ISA

CONVLAB_DEFINE_FOR(batch_statistics, batch_statistics<float>, batch_statistics<double>)
CONVLAB_DEFINE_FOR(batch_norm_grad_sums, batch_norm_grad_sums<float>, batch_norm_grad_sums<double>)
CONVLAB_DEFINE_FOR(batch_norm_dgrad, batch_norm_dgrad<float>, batch_norm_dgrad<double>)
