// Depthwise convolution of one dimension along long rows: vector after vector, from the first column to the last.
//
// What it does    Each vector of the source is loaded once, and serves three of the target: it lies right of the first, in
//                 the middle of the second, left of the third. Taps are shifted out of three such vectors. The weights stay
//                 in registers for a row. Where the machine has no masks, taps are loaded one by one from a copy between
//                 zeros.
// Against bands   (bands.h) of four vectors each: no bounds, masks and weights anew for each of them.
// What bounds it  multiply-adds and shifts, one of each for a tap; very long rows also memory.
#pragma once
#include "cpu/conv2d/block/ending.h"
#include "cpu/conv2d/depthwise/bands.h"

namespace convlab::CONVLAB_ISA::depthwise {

// f's function for filters of so many columns
template <class F> auto of_row(int columns, F f) {
  return columns == 3   ? f(std::integral_constant<int, 3>())
         : columns == 5 ? f(std::integral_constant<int, 5>())
         : columns == 7 ? f(std::integral_constant<int, 7>())
                        : f(std::integral_constant<int, 9>());
}

constexpr int kTogether = kMasks ? 2 : 4;  // vectors that add by turns: none waits for itself

// A row's elements from `at` on, those outside as zeros
template <class A> CONVLAB_INLINE Vec<A> load_inside(const A* row, int at, int elements) {
  constexpr int L = kLanes<A>;
  return at >= 0 && at + L <= elements ? load<A>(row + at) : load_masked<A>(row + at, inside(at, elements, L));
}

// source, target: a row's first elements; weights [S, L]
template <class A, int S>
void along_row(const Depthwise& d, const A* source, const A* weights, const A* bias, A* target) {
  constexpr int L = kLanes<A>;
  const int sources = d.product.columns.source, columns = d.product.columns.target;
  const int middle = d.window.column_offset + S / 2;  // of the first column's taps
  const Ending ending = d.ending;
  Vec<A> w[S];
#pragma GCC unroll 16
  for (int i = 0; i < S; i++) w[i] = load<A>(weights + i * L);
  const Vec<A> start = load<A>(bias);
  const auto vector = [&](int at) __attribute__((always_inline)) { return load_inside(source, at, sources); };

  Vec<A> left{}, here{};
  if constexpr (kMasks) left = vector(middle - L), here = vector(middle);
  const auto put = [&](int q, auto count) __attribute__((always_inline)) {  // columns from q on
    constexpr int V = count;
    Vec<A> sums[V], near[V + 2] = {left, here};
#pragma GCC unroll 4
    for (int i = 0; i < V; i++) {
      sums[i] = start;
      if constexpr (kMasks) near[i + 2] = vector(middle + q + (i + 1) * L);
    }
    each_number<S>([&](auto tap) __attribute__((always_inline)) {
      constexpr int shift = tap - S / 2;
#pragma GCC unroll 4
      for (int i = 0; i < V; i++) {
        Vec<A> value;
        if constexpr (kMasks) value = shifted<A, shift>(near[i], near[i + 1], near[i + 2]);
        else value = load<A>(source + middle + q + i * L + shift);
        keep(value);
        sums[i] += w[tap] * value;
      }
    });
    left = near[V], here = near[V + 1];
    activate<A>(ending, sums);
#pragma GCC unroll 4
    for (int i = 0; i < V; i++) store_some<A>(target + q + i * L, sums[i], columns - q - i * L);
  };
  int q = 0;
  for (; q + (kTogether - 1) * L < columns; q += kTogether * L) put(q, std::integral_constant<int, kTogether>());
  for (; q < columns; q += L) put(q, std::integral_constant<int, 1>());
}

// sums [S, L] += dy times x, of a row of each
template <class A, int S> void along_row_wgrad(const Depthwise& d, const A* x, const A* dy, A* sums) {
  constexpr int L = kLanes<A>;
  const int sources = d.product.columns.source, columns = d.product.columns.target;
  const int middle = d.window.column_offset + S / 2;
  Vec<A> acc[S];
#pragma GCC unroll 16
  for (int i = 0; i < S; i++) acc[i] = load<A>(sums + i * L);
  const auto vector = [&](int at) __attribute__((always_inline)) { return load_inside(x, at, sources); };

  Vec<A> left{}, here{}, lanes{};
  for (int l = 0; l < L; l++) lanes[l] = A(l);
  if constexpr (kMasks) left = vector(middle - L), here = vector(middle);
  const auto add = [&](int q, Vec<A> grad, auto value_of) __attribute__((always_inline)) {
    Vec<A> right{};
    if constexpr (kMasks) right = vector(middle + q + L);
    each_number<S>([&](auto tap) __attribute__((always_inline)) {
      constexpr int shift = tap - S / 2;
      Vec<A> value;
      if constexpr (kMasks) value = shifted<A, shift>(left, here, right);
      else value = load<A>(x + middle + q + shift);
      value = value_of(value);
      keep(value);
      acc[tap] += grad * value;
    });
    left = here, here = right;
  };
  int q = 0;
  for (; q + L <= columns; q += L)
    add(q, load<A>(dy + q), [](Vec<A> value) __attribute__((always_inline)) { return value; });
  if (q < columns) {  // elements of x past dy's end may be infinite, and must not meet zeros
    const auto counts = lanes < A(columns - q);
    add(q, load_some<A>(dy + q, columns - q),
        [&](Vec<A> value) __attribute__((always_inline)) { return counts ? value : Vec<A>{}; });
  }
#pragma GCC unroll 16
  for (int i = 0; i < S; i++) store<A>(sums + i * L, acc[i]);
}

}  // namespace convlab::CONVLAB_ISA::depthwise
