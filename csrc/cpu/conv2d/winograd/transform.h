// The three transformations along one dimension, on vectors: of inputs, filters and sums (points.h). Coefficients are
// compile-time constants, ones and zeros cost nothing, and a pair of points shares its even and its odd half: 12
// multiply-adds for six inputs.
#pragma once
#include "cpu/conv2d/winograd/points.h"
#include "cpu/simd/vec.h"

namespace convlab::CONVLAB_ISA::winograd {

using convlab::winograd::Fraction, convlab::winograd::has_point, convlab::winograd::kTaps;
using Floats = Vec<float>;

// A row of `input`, for tiles with n outputs: the even columns (part 0) and the odd ones (part 1) as
// factor * (x[last] + sum of ratio[j] x[j] over j = last - 2, last - 4, ...); last < 0 where all are zero
template <int m> struct InputRow {
  int last[2] = {-1, -1};
  float factor[2] = {}, ratio[m + 2] = {};
};

template <int m, int n> struct Coefficients {
  InputRow<m> input[m + 2];
  float power[m + 2][m + 1];   // of a point
  float output[m + 2][m + 1];  // [i][k], for the points that are not infinity

  consteval Coefficients() : power{}, output{} {
    using M = convlab::winograd::Matrices<m>;
    for (int i = 0; i < m + 2; i++) {
      for (int j = 0; j < m + 2; j++)
        if (!(M::input(n, i, j) == Fraction(0))) input[i].last[j % 2] = j;
      for (int part = 0; part < 2; part++) {
        const int last = input[i].last[part];
        if (last < 0) continue;
        input[i].factor[part] = float(M::input(n, i, last));
        for (int j = last - 2; j >= 0; j -= 2) input[i].ratio[j] = float(M::input(n, i, j) / M::input(n, i, last));
      }
      for (int k = 0; k <= m && i <= m; k++)
        power[i][k] = float(M::filter(m, i, k)), output[i][k] = float(M::output(m, k, i));
    }
  }
};
template <int m, int n> constexpr Coefficients<m, n> kCoefficients{};

// sum + c x, where c is a constant
CONVLAB_INLINE Floats plus(Floats sum, float c, Floats x) {
  return c == 0 ? sum : c == 1 ? sum + x : c == -1 ? sum - x : sum + c * x;
}
CONVLAB_INLINE Floats times(float c, Floats x) { return c == 1 ? x : c == -1 ? -x : c * x; }

// The even (parity 0) or the odd columns' share of a row of `input`, but for its factor
template <int m, int n> CONVLAB_INLINE Floats half_of_input(int i, int parity, const Floats (&x)[m + 2]) {
  const InputRow<m>& row = kCoefficients<m, n>.input[i];
  Floats sum = x[row.last[parity]];
#pragma GCC unroll 8
  for (int j = m + 1; j >= 0; j--)
    if (j % 2 == parity && j < row.last[parity]) sum = plus(sum, row.ratio[j], x[j]);
  return sum;
}

// x [n + 2] -> t, the points of tiles with n outputs
template <int m, int n> CONVLAB_INLINE void transform_input(const Floats (&x)[m + 2], Floats (&t)[m + 2]) {
  constexpr const auto& rows = kCoefficients<m, n>.input;
  t[0] = times(rows[0].factor[0], half_of_input<m, n>(0, 0, x));
  if (has_point(m, n, m + 1)) t[m + 1] = times(rows[m + 1].factor[1], half_of_input<m, n>(m + 1, 1, x));
#pragma GCC unroll 4
  for (int i = 1; i < m; i += 2) {
    if (!has_point(m, n, i)) continue;
    const Floats even = times(rows[i].factor[0], half_of_input<m, n>(i, 0, x)), odd = half_of_input<m, n>(i, 1, x);
    t[i] = plus(even, rows[i].factor[1], odd), t[i + 1] = plus(even, -rows[i].factor[1], odd);
  }
}

// A filter g of so many taps -> t, the points of tiles with n outputs
template <int m, int n, int taps> CONVLAB_INLINE void transform_filter(const Floats* g, Floats (&t)[m + 2]) {
  t[0] = g[0];
  if (has_point(m, n, m + 1)) t[m + 1] = g[taps - 1];
#pragma GCC unroll 8
  for (int i = 1; i < m; i += 2) {
    if (!has_point(m, n, i)) continue;
    const float (&power)[m + 1] = kCoefficients<m, n>.power[i];
    Floats even = g[0];
#pragma GCC unroll 8
    for (int k = 2; k < taps; k += 2) even = plus(even, power[k], g[k]);
    if (taps == 1) {
      t[i] = t[i + 1] = even;
      continue;
    }
    Floats odd = g[taps > 1];
#pragma GCC unroll 8
    for (int k = 3; k < taps; k += 2) odd = plus(odd, power[k - 1], g[k]);
    t[i] = plus(even, power[1], odd), t[i + 1] = plus(even, -power[1], odd);
  }
}

// t, the points of tiles with n outputs -> y [outputs]
template <int m, int n, int outputs> CONVLAB_INLINE void transform_output(const Floats (&t)[m + 2], Floats* y) {
  constexpr const Coefficients<m, n>& c = kCoefficients<m, n>;
  Floats sums[m / 2], differences[m / 2];
#pragma GCC unroll 4
  for (int i = 0; i < m / 2; i++) {
    if (!has_point(m, n, 1 + 2 * i)) continue;
    sums[i] = t[1 + 2 * i] + t[2 + 2 * i], differences[i] = t[1 + 2 * i] - t[2 + 2 * i];
  }
#pragma GCC unroll 4
  for (int k = 0; k < outputs; k++) {
    const bool infinity = k == outputs - 1 && has_point(m, n, m + 1);
    Floats sum = times(c.output[1][k], k % 2 ? differences[0] : sums[0]);
#pragma GCC unroll 4
    for (int i = 1; i < m / 2; i++)
      if (has_point(m, n, 1 + 2 * i)) sum = plus(sum, c.output[1 + 2 * i][k], k % 2 ? differences[i] : sums[i]);
    if (k == 0) sum = plus(sum, c.output[0][0], t[0]);
    y[k] = infinity ? sum + t[m + 1] : sum;
  }
}

}  // namespace convlab::CONVLAB_ISA::winograd
