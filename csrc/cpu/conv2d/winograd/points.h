// Winograd's matrices, made from their points. Torch-free, and for kernels as well.
//
// n outputs of a filter of 3 taps, y[k] = sum over r of x[k + r] g[r], are the sum over n + 2 points of
//
//   y[k] = sum over i of output[k][i] * (sum over r of filter[i][r] g[r]) * (sum over j of input[i][j] x[j])
//
// which takes n + 2 products instead of 3 n. The filter is a polynomial, whose value at point i is filter[i]'s sum; x
// is what Lagrange's interpolation, transposed, makes of it; infinity, as a point, stands for the highest coefficient.
// In two dimensions each sum is taken along columns and along rows. wgrad has the same points and the same `input`: 3
// outputs, dw, of a filter of n taps, dy.
//
// Points decide the error: 0, +-2/3, +-3/2, infinity have half of what 0, +-1, +-2, infinity have, and zero, pairs and
// infinity is what makes a transformation cheap: the rows of +a and -a differ by a sign in every other column.
#pragma once

namespace convlab::winograd {

struct Fraction {
  long long over, under;

  consteval Fraction(long long over = 0, long long under = 1) : over(over), under(under) {
    long long a = over < 0 ? -over : over, b = under < 0 ? -under : under;
    while (b) {
      const long long rest = a % b;
      a = b, b = rest;
    }
    if (under < 0) a = -a;
    this->over /= a, this->under /= a;
  }
  consteval Fraction operator*(Fraction b) const { return {over * b.over, under * b.under}; }
  consteval Fraction operator/(Fraction b) const { return {over * b.under, under * b.over}; }
  consteval Fraction operator+(Fraction b) const { return {over * b.under + b.over * under, under * b.under}; }
  consteval Fraction operator-(Fraction b) const { return {over * b.under - b.over * under, under * b.under}; }
  consteval bool operator==(const Fraction&) const = default;
  consteval explicit operator float() const { return float(double(over) / double(under)); }
};

// The points of tiles of m x m outputs, in this order: 0; a, -a for each a of the list; infinity
template <int m> struct Pairs;
template <> struct Pairs<2> {
  static constexpr Fraction list[] = {1};
};
template <> struct Pairs<4> {
  static constexpr Fraction list[] = {{2, 3}, {3, 2}};
};

constexpr int kTaps = 3;

// Tiles at the lower and the right edge may have only n of m outputs. These need n + 2 points: the first n + 1 and
// infinity, or the first n + 2, if n is odd.
[[gnu::always_inline]] constexpr bool has_point(int m, int n, int i) {
  return i < n + 1 + n % 2 || (i == m + 1 && n % 2 == 0);
}

template <int m> consteval Fraction point(int i) {
  if (i == 0) return 0;
  return i % 2 ? Pairs<m>::list[(i - 1) / 2] : Fraction(0) - Pairs<m>::list[(i - 1) / 2];
}

consteval Fraction power(Fraction a, int exponent) {
  Fraction result = 1;
  for (int i = 0; i < exponent; i++) result = result * a;
  return result;
}

// The product of (point i - point j) over the other points of a tile with n outputs; 1 for infinity
template <int m> consteval Fraction norm(int n, int i) {
  Fraction result = 1;
  for (int j = 0; j <= m && i <= m; j++)
    if (j != i && has_point(m, n, j)) result = result * (point<m>(i) - point<m>(j));
  return result;
}

// Tiles of all sizes share the transformed filters and the outputs' matrix, because `input` makes up for what their
// norms differ by.
template <int m> struct Matrices {
  static constexpr int kPoints = m + 2;

  // [i][j], for tiles with n outputs
  static consteval Fraction input(int n, int i, int j) {
    Fraction row[m + 3] = {1};  // the product of (x - point) over the others
    for (int p = 0; p <= m; p++) {
      if (p == i || !has_point(m, n, p)) continue;
      for (int k = m + 1; k >= 0; k--) row[k] = (k ? row[k - 1] : Fraction(0)) - point<m>(p) * row[k];
    }
    return row[j] * norm<m>(m, i) / norm<m>(n, i);
  }
  // [i][r], for a filter of so many taps
  static consteval Fraction filter(int taps, int i, int r) {
    return i <= m ? power(point<m>(i), r) : Fraction(r == taps - 1);
  }
  // [k][i], for so many outputs
  static consteval Fraction output(int outputs, int k, int i) {
    return i <= m ? power(point<m>(i), k) / norm<m>(m, i) : Fraction(k == outputs - 1);
  }
};

// All of them, for whoever wants to look
template <int m, int n> struct AllMatrices {
  Fraction input[m + 2][m + 2], filter[m + 2][kTaps], output[n][m + 2];

  consteval AllMatrices() {
    using M = Matrices<m>;
    for (int i = 0; i < m + 2; i++) {
      const Fraction has = has_point(m, n, i);
      for (int j = 0; j < m + 2; j++) input[i][j] = has * M::input(n, i, j);
      for (int r = 0; r < kTaps; r++) filter[i][r] = has * M::filter(kTaps, i, r);
      for (int k = 0; k < n; k++) output[k][i] = has * M::output(n, k, i);
    }
  }
};

// Whether the matrices of tiles with n of m outputs make `outputs` outputs of a filter of so many taps
template <int m> consteval bool correlates(int n, int outputs, int taps) {
  using M = Matrices<m>;
  for (int k = 0; k < outputs; k++)
    for (int r = 0; r < taps; r++)
      for (int j = 0; j < M::kPoints; j++) {
        Fraction sum = 0;
        for (int i = 0; i < M::kPoints; i++)
          if (has_point(m, n, i)) sum = sum + M::output(outputs, k, i) * M::filter(taps, i, r) * M::input(n, i, j);
        if (!(sum == Fraction(j == k + r))) return false;
      }
  return true;
}
template <int m> consteval bool correct() {
  for (int n = 1; n <= m; n++)
    if (!correlates<m>(n, n, kTaps) || !correlates<m>(n, kTaps, n)) return false;  // forward and dgrad; wgrad
  return true;
}
static_assert(correct<2>() && correct<4>());

}  // namespace convlab::winograd
