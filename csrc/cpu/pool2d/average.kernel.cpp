// Average pooling.
#include "cpu/pool2d/walk.h"

namespace convlab::CONVLAB_ISA {

// v of window (p, q) is divided
template <class A> struct Division {
  A by, inverse;
  bool multiplies;

  Division(const Averages& a, int p, int q)
      : by(A(a.rows[p]) * A(a.columns[q])), inverse(1 / by), multiplies(a.powers_of_two) {}
  CONVLAB_INLINE Vec<A> operator()(Vec<A> v) const { return multiplies ? v * inverse : v / by; }
};

// Sums of `from`, divided once they are complete, unless kDivides is false. kWide columns of `from`, side by side, give
// one of `to`.
template <class A, class From, class To, bool kDivides, int kWide> struct Sum {
  static constexpr int kSource = kWide, kUnrolled = kWide == 4 ? 2 : 8;
  const From* from;
  To* to;
  const Averages& averages;
  Division<A> division{averages, 0, 0};

  void begin(int p, int q) {
    if constexpr (kDivides) division = Division<A>(averages, p, q);
  }

  template <int U>
  CONVLAB_INLINE void run(const Taps& taps, int64_t at, int64_t step, int64_t target, int64_t target_step) const {
    Vec<A> sum[U];
#pragma GCC unroll 8
    for (int u = 0; u < U; u++) sum[u] = kDivides && taps.begun ? load_as<A>(to + target + u * target_step) : Vec<A>{};
    each_tap(taps, at, [&](int64_t where, int) __attribute__((always_inline)) {
#pragma GCC unroll 8
      for (int u = 0; u < U; u++) {
        each_column<A, kWide>(from + where + u * step, [&](int, Vec<A> v) { sum[u] += v; });
      }
    });
#pragma GCC unroll 8
    for (int u = 0; u < U; u++) {
      store_as<A>(to + target + u * target_step, kDivides && taps.ends ? division(sum[u]) : sum[u]);
    }
  }
};

// x -> y, in place
template <class A, int kWide, class T>
void forward_in_place(const Pooling& g, const Piece& p, const Averages& averages, const T* x, T* y) {
  using Op = Sum<A, T, T, true, kWide>;
  walk_in_place<A>(g, p, Op{x + source_of<Op>(g, p), y + target_of(g, p), averages});
}

// A vector whose lanes add up to a plane of n elements, of which the last vector has `rest`
template <class A, class T> CONVLAB_INLINE Vec<A> lanes_of_plane(const T* x, int64_t n, int rest) {
  constexpr int L = kLanes<A>;
  Vec<A> sums[4] = {};
  int64_t i = 0;
  for (; i + 4 * L <= n; i += 4 * L)
#pragma GCC unroll 4
    for (int u = 0; u < 4; u++) sums[u] += load_as<A>(x + i + u * L);
  for (; i + L <= n; i += L) sums[0] += load_as<A>(x + i);
  if (rest) sums[1] += load_some<A>(x + i, rest);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// Lane l of the result is the sum of plane(l), of as many planes as a vector has lanes: of those whose numbers differ by
// `step` (a bit), lanes that differ in it are added, until none are left.
template <class A, int step, class Plane> CONVLAB_INLINE Vec<A> sums_of_planes(int first, const Plane& plane) {
  if constexpr (step == 0) return plane(first);
  else {
    constexpr int L = kLanes<A>;
    const Vec<A> a = sums_of_planes<A, step / 2>(first, plane), b = sums_of_planes<A, step / 2>(first + step, plane);
    return shuffle<A>(a, b, [](int l) { return l & step ? l + L : l; }) +
           shuffle<A>(a, b, [](int l) { return l & step ? l - step + L : l + step; });
  }
}

// x [count planes of n] -> y [count], the averages of a vector of whole planes
template <class A, class T>
[[gnu::noinline]] void whole_planes(const Averages& averages, const T* x, int64_t n, int count, T* y) {
  const int rest = int(n % kLanes<A>);
  const Vec<A> sums = sums_of_planes<A, kLanes<A> / 2>(0, [&](int l) __attribute__((always_inline)) {
    return lanes_of_plane<A>(x + smaller(l, count - 1) * n, n, rest);
  });
  store_some<A>(y, Division<A>(averages, 0, 0)(sums), count);
}

// ---- windows that differ, of planes ----

// x -> y, of windows a good part of a vector wide: the lanes of each are added up, a vector of windows at a time
template <class A, class T>
[[gnu::noinline]] void wide_windows(const Pooling& g, const Piece& p, const Averages& averages, const T* x, T* y) {
  constexpr int L = kLanes<A>;
  const int W = g.columns.sources, Q = g.columns.targets;
  const int64_t end = smaller(p.plane + g.planes_each, g.planes);
  for (int t = p.t0; t < p.t1; t++)
    for (int q0 = 0; q0 < Q; q0 += L) {
      Vec<A> by;
      for (int l = 0; l < L; l++) by[l] = Division<A>(averages, t, int(smaller(q0 + l, Q - 1))).by;
      const Reads down = g.rows.reads[t];
      int first[L], count[L];  // of each window's columns; none, past the last window
      for (int l = 0; l < L; l++) {
        const Reads across = g.columns.reads[smaller(q0 + l, Q - 1)];
        first[l] = across.first, count[l] = q0 + l < Q ? across.count : 0;
      }
      const auto window = [&](const T* row, int l) __attribute__((always_inline)) {
        Vec<A> sum = load_some<A>(row + first[l], count[l]);
        for (int s = L; s < count[l]; s += L) sum += load_some<A>(row + first[l] + s, count[l] - s);
        return sum;
      };
      for (int64_t plane = p.plane; plane < end; plane++) {
        const T* const rows = x + (plane * g.rows.sources + down.first) * W;
        const Vec<A> sums = sums_of_planes<A, L / 2>(0, [&](int l) __attribute__((always_inline)) {
          Vec<A> sum = window(rows, l);
          for (int r = 1; r < down.count; r++) sum += window(rows + int64_t(r) * W, l);
          return sum;
        });
        store_some<A>(y + (plane * g.rows.targets + t) * Q + q0, sums / by, int(smaller(Q - q0, L)));
      }
    }
}

// f(i, lanes): vectors of a row of n elements; those of a row that is no multiple of them overlap
template <int L, class F> CONVLAB_INLINE void over_vectors(int64_t n, F f) {
  if (n < L) return f(0, int(n));
  for (int64_t i = 0; i < n; i += L) f(smaller(i, n - L), L);
}

// The sum of the columns `across` of a panel [columns, L]
template <class A> CONVLAB_INLINE Vec<A> add_columns(const A* panel, const Reads& across) {
  constexpr int L = kLanes<A>;
  Vec<A> sum = load<A>(panel + across.first * L);
  for (int s = 1; s < across.count; s++) sum += load<A>(panel + (across.first + s) * L);
  return sum;
}

// Shares [rows, Q, L] of the windows in rows from s0 on -> dx, of the piece's planes: columns first, and then rows, of
// vectors that lie side by side in memory
template <class A, class T> void columns_first(const Pooling& g, const Piece& p, const A* shares, T* dx, A* sums) {
  constexpr int L = kLanes<A>;
  const int W = g.columns.targets, Q = g.columns.sources;
  const int64_t rows = int64_t(p.s1 - p.s0) * W;
  A* const panel = sums + rows * L;  // [W, L] of a row; sums [L, rows, W]
  for (int r = p.s0; r < p.s1; r++, shares += Q * L) {
    for (int w = 0; w < W; w++) store<A>(panel + w * L, add_columns(shares, g.columns.reads[w]));
    over_vectors<L>(W, [&](int64_t i, int lanes) __attribute__((always_inline)) {
      Vec<A> block[L];
#pragma GCC unroll 16
      for (int l = 0; l < L; l++) block[l] = l < lanes ? load<A>(panel + (i + l) * L) : Vec<A>{};
      transpose<A>(block);
#pragma GCC unroll 16
      for (int l = 0; l < L; l++) store_some<A>(sums + l * rows + (r - p.s0) * W + i, block[l], lanes);
    });
  }
  const Planes<A> planes(g, p.plane, int64_t(g.rows.targets) * W, 0);
  for (int l = 0; l < planes.count; l++)
    for (int t = p.t0; t < p.t1; t++) {
      const Reads& down = g.rows.reads[t];
      const A* const from = sums + l * rows + (down.first - p.s0) * W;
      T* const to = dx + planes.at[l] + int64_t(t) * W;
      over_vectors<L>(W, [&](int64_t i, int lanes) __attribute__((always_inline)) {
        Vec<A> sum = load_some<A>(from + i, lanes);
        for (int r = 1; r < down.count; r++) sum += load_some<A>(from + r * W + i, lanes);
        store_some<A>(to + i, sum, lanes);
      });
    }
}

// x -> y
template <class T>
void average_forward(const Pooling& g, const Averages& averages, const T* x, T* y, int64_t begin, int64_t end,
                     char* scratch) {
  using A = acc_t<T>;
  const int64_t W = g.columns.sources, Q = g.columns.targets;
  Carver carver{scratch};
  const auto bench = pool_memory<A>(carver, g, kLanes<A>);
  for (int64_t i = begin; i < end; i++) {
    const Piece p = piece_of(g, i);
    if (g.whole) {
      const int64_t n = g.rows.sources * W;
      whole_planes<A>(averages, x + p.plane * n, n, int(smaller(kLanes<A>, g.planes - p.plane)), y + p.plane);
      continue;
    }
    if (g.in_place) {
      if (g.wide == 4) forward_in_place<A, 4>(g, p, averages, x, y);
      else if (g.wide == 2) forward_in_place<A, 2>(g, p, averages, x, y);
      else forward_in_place<A, 1>(g, p, averages, x, y);
      continue;
    }
    if (g.narrow) {
      const Division<A> divided(averages, 0, 0);
      each_narrow_row<A>(
          g, p, x, [&](const Vec<A>(&taps)[4], auto packed, int64_t to, int lanes) __attribute__((always_inline)) {
            store_some<A>(y + to, packed(divided(((taps[0] + taps[1]) + taps[2]) + taps[3])), lanes);
          });
      continue;
    }
    if (g.wide_windows) {
      wide_windows<A>(g, p, averages, x, y);
      continue;
    }
    each_panel(g, p, [&](int s0, int s1) {
      take_in(Planes<A>(g, p.plane, g.rows.sources * W, s0 * W), x, (s1 - s0) * W, bench.source);
      walk_panels<A>(g, p, Sum<A, A, A, true, 1>{bench.source, bench.target, averages}, s0, s1);
    });
    give_back(Planes<A>(g, p.plane, g.rows.targets * Q, p.t0 * Q), bench.target, (p.t1 - p.t0) * Q, y);
  }
}

// The first `step` lanes of v again and again, n elements in all; may write a vector too far, up to to_end
template <class A, class T> CONVLAB_INLINE void fill(T* to, int64_t n, int64_t step, Vec<A> v, const T* to_end) {
  for (int64_t i = 0; i < n; i += step) store_some<A>(to + i, v, int(smaller(to_end - to - i, kLanes<A>)));
}

// f(i, vector i of v's lanes, each kWide times)
template <class A, int kWide, int i = 0, class F> CONVLAB_INLINE void each_repeated(Vec<A> v, F f) {
  if constexpr (kWide == 1) f(i, v);
  else {
    each_repeated<A, kWide / 2, 2 * i>(zip<A, 0>(v, v), f);
    each_repeated<A, kWide / 2, 2 * i + 1>(zip<A, 1>(v, v), f);
  }
}

// n values, each kWide times, to `rows` rows; reads whole vectors, and may write less than a vector behind each row, up to
// to_end: what is written later lies there.
template <class A, int kWide, class T>
CONVLAB_INLINE void repeat(T* to, int rows, int64_t row, const A* values, int64_t n, const T* to_end) {
  constexpr int L = kLanes<A>;
  const bool room = to + rows * row + L <= to_end;
  for (int r = 0; r < rows; r++, to += row)
    for (int64_t i = 0; i < n; i += L)
      each_repeated<A, kWide>(load<A>(values + i), [&](int part, Vec<A> v) __attribute__((always_inline)) {
        const int64_t at = i * kWide + part * L;
        if (part > 0 && at >= n * kWide) return;
        if (room) store_as<A>(to + at, v);
        else store_some<A>(to + at, v, int(smaller(to_end - to - at, L)));
      });
}

// dy of `rows` rows of windows, from row p of a plane on, divided -> shares
template <class A, class T>
void divide(const Pooling& g, const Averages& averages, const T* dy, int p, int rows, A* shares) {
  constexpr int L = kLanes<A>;
  const int P = g.rows.sources, Q = g.columns.sources, C = int(g.channels);
  if (averages.alike) {
    const Division<A> divided(averages, 0, 0);
    const int64_t n = int64_t(rows) * Q * C, whole = n / L * L;
    for (int64_t i = 0; i < whole; i += L) store<A>(shares + i, divided(load_as<A>(dy + i)));
    if (whole < n) store<A>(shares + whole, divided(load_some<A>(dy + whole, int(n - whole))));
    return;
  }
  for (int r = 0; r < rows; r++, p = p + 1 == P ? 0 : p + 1)
    for (int q = 0; q < Q; q++, dy += C, shares += C) {
      const A by = Division<A>(averages, p, q).by;
      if (C == 1) *shares = A(*dy) / by;
      else store<A>(shares, load_some<A>(dy, C) / by);
    }
}

// Windows side by side: each element of dx is one window's share. The piece's rows of dy [N, P, Q, C] -> those of dx [N, H,
// W, C], where C is 1 or less than a vector. Memory: shares [sources_each, Q, C] and a vector
template <class A, class T>
void spread(const Pooling& g, const Averages& averages, const Piece& piece, const T* dy, T* dx, A* shares) {
  constexpr int L = kLanes<A>;
  const int Q = g.columns.sources, C = int(g.channels);
  const int64_t row = int64_t(g.columns.targets) * C, window = int64_t(g.columns.period) * C, step = C == 1 ? L : C,
                rows = piece.t1 - piece.t0, below = (rows - int64_t(piece.s1 - piece.s0) * g.rows.period) * row;
  int64_t planes = smaller(g.planes_each, g.planes - piece.plane), left = planes * (piece.s1 - piece.s0);
  dy += (piece.plane * g.rows.sources + piece.s0) * Q * C, dx += (piece.plane * g.rows.targets + piece.t0) * row;
  const T* const to_end = dx + planes * rows * row;
  const auto share = [&](const A* of_row, int q) { return C == 1 ? broadcast<A>(of_row[q]) : load<A>(of_row + q * C); };
  const int64_t wide = C == 1 && (window == 2 || window == 4) ? window : 0;
  const int together = wide && row == Q * window ? g.rows.period : 1;  // rows of dx written at once
  int held = 0;
  const A* of_row = shares;
  for (; planes > 0; planes--) {
    for (int p = piece.s0; p < piece.s1; p++, left--, held--, of_row += Q * C) {
      if (held == 0) {
        held = int(smaller(g.sources_each, left)), of_row = shares;
        divide(g, averages, dy, p, held, shares), dy += int64_t(held) * Q * C;
      }
      if (Q == 1 && window == row) {  // rows of one share are one piece of memory
        fill<A>(dx, g.rows.period * row, step, share(of_row, 0), to_end), dx += g.rows.period * row;
        continue;
      }
      for (int r = 0; r < g.rows.period; r += together, dx += together * row) {
        if (wide == 2) repeat<A, 2>(dx, together, row, of_row, Q, to_end);
        else if (wide == 4) repeat<A, 4>(dx, together, row, of_row, Q, to_end);
        else
          for (int q = 0; q < Q; q++) fill<A>(dx + q * window, window, step, share(of_row, q), to_end);
        fill<A>(dx + Q * window, row - Q * window, L, Vec<A>{}, to_end);
      }
    }
    fill<A>(dx, below, L, Vec<A>{}, to_end), dx += below;
  }
}

// dy, divided, -> dx
template <class T>
void average_backward(const Pooling& g, const Averages& averages, const T* dy, T* dx, int64_t begin, int64_t end,
                      char* scratch) {
  using A = acc_t<T>;
  constexpr int L = kLanes<A>;
  const int64_t W = g.columns.targets, Q = g.columns.sources;
  Carver carver{scratch};
  const auto bench = pool_memory<A>(carver, g, L);
  for (int64_t i = begin; i < end; i++) {
    const Piece p = piece_of(g, i);
    if (g.side_by_side) {
      spread<A>(g, averages, p, dy, dx, bench.source);
      continue;
    }
    const int64_t n = g.in_place ? p.channels : L;
    A* shares = bench.source;
    if (!g.in_place) take_in(Planes<A>(g, p.plane, g.rows.sources * Q, p.s0 * Q), dy, (p.s1 - p.s0) * Q, shares);
    for (int r = p.s0; r < p.s1; r++)
      for (int q = 0; q < Q; q++, shares += n) {
        const Division<A> divided(averages, r, q);
        const T* const from = dy + ((p.image * g.rows.sources + r) * Q + q) * g.source_pixel + p.channel;
        if (!g.in_place) store<A>(shares, divided(load<A>(shares)));
        else
          for (int64_t c = 0; c < n; c += L) c = smaller(c, n - L), store<A>(shares + c, divided(load_as<A>(from + c)));
      }
    if (g.in_place) {
      using Op = Sum<A, A, T, false, 1>;
      walk<A>(g, Op{bench.source, dx + target_of(g, p), averages}, n, g.target_pixel, n, p.t0, p.t1, p.s0, p.s1);
    } else if (g.columns_first) {
      columns_first(g, p, bench.source, dx, bench.sums);
    } else {
      walk_panels<A>(g, p, Sum<A, A, A, false, 1>{bench.source, bench.target, averages}, p.s0, p.s1);
      give_back(Planes<A>(g, p.plane, g.rows.targets * W, p.t0 * W), bench.target, (p.t1 - p.t0) * W, dx);
    }
  }
}

}  // namespace convlab::CONVLAB_ISA

CONVLAB_DEFINE(average_forward, average_forward)
CONVLAB_DEFINE(average_backward, average_backward)
