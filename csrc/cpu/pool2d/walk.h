// The walk over a pass's targets, and the panels of tensors that are not walked in place.
#pragma once
#include "cpu/pool2d/pooling.h"
#include "cpu/simd/integer_lanes.h"

namespace convlab::CONVLAB_ISA {

using namespace convlab::pooling;

CONVLAB_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
CONVLAB_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// Elements p[which], p[which + kWide], ...
template <class A, int kWide, int which, class T> CONVLAB_INLINE Vec<A> load_column(const T* p) {
  constexpr int half = kWide / 2;
  if constexpr (kWide == 1) return load_as<A>(p);
  else
    return unzip<A, which / half>(load_column<A, half, which % half>(p),
                                  load_column<A, half, which % half>(p + half * kLanes<A>));
}
// f(s, load_column of s) for each of the columns
template <class A, int kWide, int s = 0, class T, class F> CONVLAB_INLINE void each_column(const T* p, F f) {
  if constexpr (s < kWide) f(s, load_column<A, kWide, s>(p)), each_column<A, kWide, s + 1>(p, f);
}

// What a vector of targets reads: rows times columns of the source, `row` and `column` elements apart
struct Taps {
  int rows, columns = 0;
  int64_t row, column;
  int first = 0, row_tap, column_tap;  // the first tap, and from one to the next
  bool begun, ends;  // the target holds what was read before; this is the last of it
};

// f(where, tap), in the order of the window
template <class F> CONVLAB_INLINE void each_tap(const Taps& taps, int64_t at, F f) {
  int tap_of_row = taps.first;
  for (int r = 0; r < taps.rows; r++, at += taps.row, tap_of_row += taps.row_tap) {
    int64_t where = at;
    int tap = tap_of_row;
    for (int s = 0; s < taps.columns; s++, where += taps.column, tap += taps.column_tap) f(where, tap);
  }
}

// An Operation makes U vectors of the target of what their taps read: op.run<U>(taps, at, step, to, to_step), where
// they lie `step` apart in the source and `to_step` in the target. A lane is Op::kSource elements of the source wide; U
// is Op::kUnrolled, or less at the end. op.begin(t, u): the target's position.
template <class A, class Op>
CONVLAB_INLINE void vectors(const Op& op, const Taps& taps, int64_t at, int64_t step, int64_t to, int64_t to_step,
                            int64_t count) {
  constexpr int U = Op::kUnrolled;
  for (; count >= U; count -= U, at += U * step, to += U * to_step) op.template run<U>(taps, at, step, to, to_step);
  if (U > 4 && count & 4) op.template run<4>(taps, at, step, to, to_step), at += 4 * step, to += 4 * to_step;
  if (count & 2) op.template run<2>(taps, at, step, to, to_step), at += 2 * step, to += 2 * to_step;
  if (count & 1) op.template run<1>(taps, at, step, to, to_step);
}

// Where a row of the target and what it reads begin, and their positions' elements
struct Row {
  int t;
  int64_t at, pixel, to, to_pixel;
};

// A row of L channels: vectors of positions that read alike. Copies of op and taps, so that no store can change them.
template <class A, class Op>
[[gnu::noinline]] void row_of_positions(Op op, Taps taps, const PoolAxis& columns, const Row& row) {
  const int first = taps.first;
  for (int phase = 0; phase < smaller(columns.period, columns.targets); phase++)
    for (int u = phase; u < columns.targets;) {
      const Reads across = columns.reads[u];
      taps.columns = across.count, taps.first = first + across.tap;
      op.begin(row.t, u);
      vectors<A>(op, taps, row.at + across.first * row.pixel, columns.advance * row.pixel, row.to + u * row.to_pixel,
                 columns.period * row.to_pixel, across.alike);
      u += across.alike * columns.period;
    }
}

// A row of n >= L channels: vectors of each position's
template <class A, class Op>
[[gnu::noinline]] void row_of_channels(Op op, Taps taps, const PoolAxis& columns, const Row& row, int64_t n) {
  constexpr int L = kLanes<A>;
  const int first = taps.first;
  for (int u = 0; u < columns.targets; u++) {
    const Reads across = columns.reads[u];
    const int64_t at = row.at + across.first * row.pixel, to = row.to + u * row.to_pixel, last = n - L;
    taps.columns = across.count, taps.first = first + across.tap;
    op.begin(row.t, u);
    vectors<A>(op, taps, at, L * Op::kSource, to, L, n / L);
    if (n % L) op.template run<1>(taps, at + last * Op::kSource, 0, to + last, 0);
  }
}

// Rows [t0, t1) of the target, of what rows [s0, s1) of the source have for them. Both begin with the first of these
// rows, and have `pixel` and `to_pixel` elements a position: n channels in place, or panels.
template <class A, class Op>
void walk(const Pooling& g, const Op& op, int64_t pixel, int64_t to_pixel, int64_t n, int t0, int t1, int s0, int s1) {
  const PoolAxis &rows = g.rows, &columns = g.columns;
  const int64_t row = columns.sources * pixel;
  for (int t = t0; t < t1; t++) {
    Reads down = rows.reads[t];
    const int skipped = down.first < s0 ? int(smaller(down.count, (s0 - down.first + rows.step - 1) / rows.step)) : 0;
    down.first += skipped * rows.step, down.count -= skipped, down.tap += skipped * rows.tap_step;
    const int last = down.first + (down.count - 1) * rows.step;
    if (last >= s1) down.count = down.first < s1 ? (s1 - 1 - down.first) / rows.step + 1 : 0;
    const Taps taps{.rows = down.count,
                    .row = rows.step * row,
                    .column = columns.step * pixel,
                    .first = down.tap,
                    .row_tap = rows.tap_step,
                    .column_tap = columns.tap_step,
                    .begun = skipped > 0,
                    .ends = last >= s0 && last < s1};
    const Row of_target{t, (down.first - s0) * row, pixel, (t - t0) * columns.targets * to_pixel, to_pixel};
    if (n > kLanes<A>) row_of_channels<A>(op, taps, columns, of_target, n);
    else row_of_positions<A>(op, taps, columns, of_target);
  }
}

// ---- panels ----

// A vector of planes of a tensor, from some position on: where they lie, and how far apart their elements
template <class A> struct Planes {
  int64_t at[kLanes<A>], pixel;
  int count;

  // of planes of `places` elements, from element `place` on
  Planes(const Pooling& g, int64_t first, int64_t places, int64_t place) : pixel(g.channels) {
    count = int(smaller(kLanes<A>, g.planes - first));
    for (int l = 0; l < kLanes<A>; l++) {
      const int64_t plane = first + smaller(l, count - 1);
      at[l] = pixel == 1 ? plane * places + place : plane / pixel * places * pixel + plane % pixel + place * pixel;
    }
  }
};

// Integers go the way of floats' bits.
template <class A, class T> CONVLAB_INLINE Vec<A> load_lanes(const T* p) {
  if constexpr (std::is_integral_v<T>) return (Vec<A>)load_integers<A>(p);
  else return load_as<A>(p);
}
template <class A, class T> CONVLAB_INLINE void store_lanes(T* p, Vec<A> v) {
  if constexpr (std::is_integral_v<T>) store_integers<A>(p, (Integers<A>)v);
  else store_as<A>(p, v);
}

// n elements of each plane -> panel [n, L]
template <class A, class T, class P> void take_in(const Planes<A>& planes, const T* from, int64_t n, P* panel) {
  constexpr int L = kLanes<A>;
  if (planes.pixel == 1 && n >= L) {
    for (int64_t i = 0; i < n; i += L) {
      i = smaller(i, n - L);
      Vec<A> block[L];
#pragma GCC unroll 16
      for (int l = 0; l < L; l++) block[l] = load_lanes<A>(from + planes.at[l] + i);
      transpose<A>(block);
#pragma GCC unroll 16
      for (int l = 0; l < L; l++) store_lanes<A>(panel + (i + l) * L, block[l]);
    }
  } else {
    for (int64_t i = 0; i < n; i++)
      for (int l = 0; l < L; l++) panel[i * L + l] = P(from[planes.at[l] + i * planes.pixel]);
  }
}

// panel [n, L] -> n elements of each plane
template <class A, class T, class P> void give_back(const Planes<A>& planes, const P* panel, int64_t n, T* to) {
  constexpr int L = kLanes<A>;
  if (planes.pixel == 1 && n >= L) {
    for (int64_t i = 0; i < n; i += L) {
      i = smaller(i, n - L);
      Vec<A> block[L];
#pragma GCC unroll 16
      for (int l = 0; l < L; l++) block[l] = load_lanes<A>(panel + (i + l) * L);
      transpose<A>(block);
#pragma GCC unroll 16
      for (int l = 0; l < L; l++)
        if (l < planes.count) store_lanes<A>(to + planes.at[l] + i, block[l]);
    }
  } else {
    for (int64_t i = 0; i < n; i++)
      for (int l = 0; l < planes.count; l++) to[planes.at[l] + i * planes.pixel] = T(panel[i * L + l]);
  }
}

// ---- pieces ----

struct Piece {
  int64_t image, channel, channels;  // in place
  int64_t plane;  // in panels
  int t0, t1;  // rows of the target
  int s0, s1;  // rows of the source that these read
};

CONVLAB_INLINE Piece piece_of(const Pooling& g, int64_t index) {
  Piece p{};
  const int64_t strips = (g.rows.targets + g.rows_each - 1) / g.rows_each, block = index / strips;
  p.t0 = int(index % strips) * g.rows_each, p.t1 = int(smaller(p.t0 + g.rows_each, g.rows.targets));
  if (g.in_place) {
    const int64_t blocks = g.channels / g.channels_each;  // the last has what is left as well
    p.image = block / blocks, p.channel = block % blocks * g.channels_each;
    p.channels = block % blocks == blocks - 1 ? g.channels - p.channel : g.channels_each;
  } else {
    p.plane = block * g.planes_each;
  }
  p.s0 = g.rows.sources, p.s1 = 0;
  for (int t = p.t0; t < p.t1; t++) {
    const Reads& r = g.rows.reads[t];
    if (r.count == 0) continue;
    p.s0 = int(smaller(p.s0, r.first)), p.s1 = int(larger(p.s1, r.first + (r.count - 1) * g.rows.step + 1));
  }
  p.s0 = int(smaller(p.s0, p.s1));
  return p;
}

// Calls of_rows(s0, s1) for what a panel holds at a time of the piece's source
template <class F> CONVLAB_INLINE void each_panel(const Pooling& g, const Piece& p, F of_rows) {
  int s = p.s0;
  do {
    const int end = int(smaller(s + g.sources_each, p.s1));
    of_rows(s, end), s = end;
  } while (s < p.s1);
}

// Where a piece begins in the source and the target, in place
template <class Op> CONVLAB_INLINE int64_t source_of(const Pooling& g, const Piece& p) {
  return p.image * g.rows.sources * g.columns.sources * g.source_pixel + p.channel * Op::kSource;
}
CONVLAB_INLINE int64_t target_of(const Pooling& g, const Piece& p) {
  return (p.image * g.rows.targets + p.t0) * g.columns.targets * g.target_pixel + p.channel;
}

template <class A, class Op> CONVLAB_INLINE void walk_in_place(const Pooling& g, const Piece& p, const Op& op) {
  walk<A>(g, op, g.source_pixel, g.target_pixel, p.channels, p.t0, p.t1, 0, g.rows.sources);
}
template <class A, class Op>
CONVLAB_INLINE void walk_panels(const Pooling& g, const Piece& p, const Op& op, int s0, int s1) {
  walk<A>(g, op, kLanes<A>, kLanes<A>, kLanes<A>, p.t0, p.t1, s0, s1);
}

// f(taps, packed, to, lanes) for the rows of a piece's planes where windows are `narrow`: the four taps of a vector of
// windows, what of them is packed(what), of which `lanes` elements from `to` on. Windows past a row's end hold what the next
// row overwrites. Two rows that fit halves of a vector are taken at once, and packed.
template <class A, class T, class F>
CONVLAB_INLINE void each_narrow_row(const Pooling& g, const Piece& p, const T* x, F f) {
  constexpr int L = kLanes<A>;
  const int P = g.rows.targets, Q = g.columns.targets, W = g.columns.sources, each = 2 * Q <= L ? 2 : 1;
  const int64_t size = int64_t(g.rows.sources) * W, end = smaller(p.plane + L, g.planes) * P;
  const T* const x_end = x + g.planes * size;
  const auto load_row = [&](const T* from, int first) __attribute__((always_inline)) {  // from column `first` on
    return from + first + L <= x_end ? load_as<A>(from + first) : load_some<A>(from + first, 2 * Q - first);
  };
  Integers<A> side_by_side;  // the windows of two rows, which begin L / 2 lanes apart
  for (int l = 0; l < L; l++) side_by_side[l] = l < Q ? l : int(smaller(L / 2 + l - Q, L - 1));
  int r = 0;  // of the plane
  const T* top = x + p.plane * size;
  const auto next = [&] {
    const T* const row = top;
    if (++r == P) r = 0, top += size - int64_t(2) * (P - 1) * W;
    else top += 2 * W;
    return row;
  };
  for (int64_t row = p.plane * P; row < end; row += each) {
    const T* const first = next();
    const bool two = each == 2 && row + 1 < end;
    const T* const second = two ? next() : first;
    Vec<A> taps[4];
#pragma GCC unroll 2
    for (int down = 0; down < 2; down++) {
      const Vec<A> a = load_row(first + down * W, 0),
                   b = each == 2 ? load_row(second + down * W, 0) : load_row(first + down * W, L);
      taps[2 * down] = unzip<A, 0>(a, b), taps[2 * down + 1] = unzip<A, 1>(a, b);
    }
    const auto packed = [&](Vec<A> v) __attribute__((always_inline)) { return two ? permuted<A>(v, side_by_side) : v; };
    const int64_t to = row * Q, all = end * Q;
    f(taps, packed, to, to + L <= all ? L : int(two ? 2 * Q : Q));
  }
}

}  // namespace convlab::CONVLAB_ISA
