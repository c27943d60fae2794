// The gradient of max pooling whose windows do not overlap, in rows that are short, or of few channels side by side.
//
// What it does    Each element of dx belongs to one window or to none, so a vector of a row of dx is a vector of dy in
//                 another order, where the offsets say so. The order is the same for all rows: it is laid out once.
// Against scattering  no zeros to write first, and a vector of elements in the time of two.
#include "cpu/pool2d/walk.h"

namespace convlab::CONVLAB_ISA {

constexpr int kNoTap = 256;  // a byte less than this is less than any first tap

// What the vectors of `together` rows [W, C] of dx are made of: vector v begins at element at[v], and has elements from[v]
// of those that begin with first[v] of a row [Q, C] of dy, where their offsets are taps[v] more than the first row's
template <int L> CONVLAB_INLINE void lay_out(const pooling::Apart& g, const pooling::ApartBench& bench) {
  const Axis& a = g.columns;
  const int row = a.size * g.channels, n = row * bench.together;
  for (int v = 0, at = 0; v < bench.vectors; v++, at += L) {
    if (at + L > n && n > L) at = n - L;
    int first = a.outputs * g.channels - 1;
    int32_t *const from = bench.from + v * L, *const taps = bench.taps + v * L;
    for (int l = 0; l < L; l++) {
      const int r = (at + l) / row, w = (at + l) % row / g.channels + a.pad, q = w / a.stride, s = w % a.stride;
      const bool inside = r < smaller(bench.together, g.rows.kernel) && q < a.outputs && s < a.kernel;
      from[l] = q * g.channels + (at + l) % g.channels, taps[l] = inside ? r * a.kernel + s : kNoTap;
      if (inside && from[l] < first) first = from[l];
    }
    for (int l = 0; l < L; l++) from[l] = taps[l] == kNoTap ? 0 : from[l] - first;
    bench.at[v] = at, bench.first[v] = first;
  }
}

// A row of windows: dy, offsets [Q, C] -> `own` elements of dx, of rows from the windows' row r on. What is written too far
// is written again, with the next row. kWhole: there are so many elements more of each that vectors need not be cut, to
// the `read` and `written` that there are.
template <bool kWhole, class T>
CONVLAB_INLINE void row_of_windows(const pooling::Apart& g, const pooling::ApartBench& bench, int r, const T* dy,
                                   const uint8_t* offsets, int64_t read, T* dx, int64_t own, int64_t written) {
  using A = acc_t<T>;
  constexpr int L = kLanes<A>;
  const int kernel = g.columns.kernel, vectors = bench.vectors;
  const int32_t *const from = bench.from, *const taps = bench.taps, *const first = bench.first, *const begin = bench.at;
  const int64_t step = int64_t(bench.together) * g.columns.size * g.channels;
  for (int v = 0; v < vectors && begin[v] < own; v++) {
    const int64_t i = first[v];
    const int lanes = kWhole ? L : int(smaller(read - i, L));
    const Integers<A> order = load_integers<A>(from + v * L);
    const Vec<A> grads = permuted<A>(load_some<A>(dy + i, lanes), order);
    const Vec<A> winners = permuted<A>((Vec<A>)load_some_integers<A>(offsets + i, lanes), order);
    const Integers<A> tap = (Integers<A>)winners - load_integers<A>(taps + v * L);
    int first_tap = r * kernel;
    for (int64_t at = begin[v]; at < own; at += step, first_tap += kernel) {
      const Vec<A> won = only_where(tap == integers<A>(first_tap), grads);
      store_some<A>(dx + at, won, kWhole ? L : int(smaller(written - at, L)));
    }
  }
}

// Images [begin, end): dy, offsets [P, Q, C] -> dx [H, W, C]
template <class T>
void max_apart(const pooling::Apart& g, const T* dy, const uint8_t* offsets, T* dx, int64_t begin, int64_t end,
               char* scratch) {
  constexpr int L = kLanes<acc_t<T>>;
  Carver carver{scratch};
  const pooling::ApartBench bench(carver, g, L);
  lay_out<L>(g, bench);
  const Axis& rows = g.rows;
  const int64_t row = int64_t(g.columns.size) * g.channels, outputs = int64_t(g.columns.outputs) * g.channels;
  int64_t read = (g.images - begin) * rows.outputs * outputs, written = (end - begin) * rows.size * row;
  dy += begin * rows.outputs * outputs, offsets += begin * rows.outputs * outputs, dx += begin * rows.size * row;
  for (int64_t image = begin; image < end; image++) {
    int64_t left = rows.size * row;
    for (int p = 0; p < rows.outputs; p++) {
      const int r = p == 0 ? rows.pad : 0;
      const int64_t own = smaller((rows.stride - r) * row, left);
      if (read >= outputs + L && written >= own + L)
        row_of_windows<true>(g, bench, r, dy, offsets, read, dx, own, written);
      else row_of_windows<false>(g, bench, r, dy, offsets, read, dx, own, written);
      dy += outputs, offsets += outputs, read -= outputs, dx += own, left -= own, written -= own;
    }
    for (; left > 0; left--, written--) *dx++ = T(0.0f);
  }
}

}  // namespace convlab::CONVLAB_ISA

CONVLAB_DEFINE(max_apart, max_apart)
