// Depthwise convolution of planes with the usual filters, 3 x 3 and 5 x 5 without stride: a band of up to four vectors
// of columns slides down the rows.
//
// What it does    A row of the source is loaded once, meets all taps and is gone: the sums of as many rows of the
//                 target as the filter has wait in registers. What taps to the left and right need is shifted out of
//                 neighbouring vectors, not loaded again. Masks stand for the zeros around a plane where the machine
//                 has them; elsewhere a strip's rows are copied between zeros, and neighbouring columns are loaded from
//                 there.
// Against tiles   (depthwise.h) no copy, no load astride two cache lines but where rows themselves begin within a line.
// What bounds it  multiply-adds; the last vector of a row is seldom full.
#pragma once
#include "cpu/isa/depthwise.h"

namespace convlab::CONVLAB_ISA::depthwise {

#if defined(__AVX512F__)
constexpr bool kMasks = true;
template <class A> CONVLAB_INLINE Vec<A> load_masked(const A* p, unsigned mask) {
  if (mask) CONVLAB_TOUCHES(p + __builtin_ctz(mask), __builtin_popcount(mask) * sizeof(A));
  if constexpr (sizeof(A) == sizeof(float)) return (Vec<A>)_mm512_maskz_loadu_ps(__mmask16(mask), p);
  else return (Vec<A>)_mm512_maskz_loadu_pd(__mmask8(mask), p);
}
// Of the vectors a, b, c side by side: the one that begins d elements after b
template <class A, int d> CONVLAB_INLINE Vec<A> shifted(Vec<A> a, Vec<A> b, Vec<A> c) {
  const __m512i left = (__m512i)(d < 0 ? a : b), right = (__m512i)(d < 0 ? b : c);
  if constexpr (d == 0) return b;
  else if constexpr (sizeof(A) == sizeof(float))
    return (Vec<A>)_mm512_maskz_alignr_epi32(__mmask16(-1), right, left, (16 + d) % 16);
  else return (Vec<A>)_mm512_maskz_alignr_epi64(__mmask8(-1), right, left, (8 + d) % 8);
}
#else
constexpr bool kMasks = false;
template <class A> CONVLAB_INLINE Vec<A> load_masked(const A* p, unsigned) { return load<A>(p); }
#endif

constexpr int kBand = 4;  // vectors of columns: with three rows of sums and nine weights they fill 32 registers

// Which of the L elements from column `first` on lie in [0, columns)
inline unsigned inside(int first, int columns, int lanes) {
  unsigned mask = 0;
  for (int l = 0; l < lanes; l++) mask |= unsigned(first + l >= 0 && first + l < columns) << l;
  return mask;
}

// A band of a plane. Row t of the source, of those in [inside0, inside1), meets rows t, t - 1, ... t - R + 1 of the
// target. `source`: row 0, where the middle taps of the first column meet it; masks say which lanes of V vectors, and
// of one before and one after, exist.
template <class A> struct Band {
  const A* source;
  int64_t source_row;
  int inside0, inside1;
  unsigned masks[kBand + 2];
  int64_t target_row;
  int rows;
  int last_lanes;  // of the last vector
};

// The V + 2 vectors of a row, or what neighbouring columns are loaded from
template <class A, int V> struct RowVectors {
  const A* from;
  Vec<A> v[V + 2];
};

template <class A, int V>
CONVLAB_INLINE void take_row(RowVectors<A, V>& row, const A* from, const unsigned (&masks)[V + 2]) {
  constexpr int L = kLanes<A>;
  row.from = from;
  if constexpr (kMasks) {
    row.v[0] = masks[0] ? load_masked<A>(from - L, masks[0]) : Vec<A>{};
#pragma GCC unroll 8
    for (int i = 1; i <= V; i++) row.v[i] = load_masked<A>(from + (i - 1) * L, masks[i]);
    row.v[V + 1] = masks[V + 1] ? load_masked<A>(from + V * L, masks[V + 1]) : Vec<A>{};
  }
}

template <class A, int V, int d> CONVLAB_INLINE Vec<A> neighbour(const RowVectors<A, V>& row, int i) {
  if constexpr (kMasks) return shifted<A, d>(row.v[i], row.v[i + 1], row.v[i + 2]);
  else return load<A>(row.from + i * kLanes<A> + d);
}

// f(column of the filter, its vector) for vector i of a row
template <class A, int R, int V, class F, int... S>
CONVLAB_INLINE void each_neighbour(const RowVectors<A, V>& row, int i, const F& f, indices<S...>) {
  (f(S, neighbour<A, V, S - R / 2>(row, i)), ...);
}

// weights [R R, L]
template <class A, int R, int V> void window(const Band<A>& band, const A* weights, const A* bias, A* target) {
  constexpr int L = kLanes<A>;
  Vec<A> w[R * R], sums[R][V];
#pragma GCC unroll 32
  for (int i = 0; i < R * R; i++) w[i] = load<A>(weights + i * L);
  const Vec<A> start = load<A>(bias);
  unsigned masks[V + 2];  // not read again after every store
#pragma GCC unroll 8
  for (int i = 0; i < V + 2; i++) masks[i] = band.masks[i];
  const int rows = band.rows, inside0 = band.inside0, inside1 = band.inside1, last_lanes = band.last_lanes;
  const int64_t source_row = band.source_row, target_row = band.target_row;
  const A* from = band.source;
#pragma GCC unroll 8
  for (int k = 0; k < R; k++)
#pragma GCC unroll 8
    for (int i = 0; i < V; i++) sums[k][i] = start;

  for (int t = 0; t < rows + R - 1; t++, from += source_row) {
    if (t >= inside0 && t < inside1) {
      RowVectors<A, V> row;
      take_row<A, V>(row, from, masks);
#pragma GCC unroll 8
      for (int i = 0; i < V; i++)
        each_neighbour<A, R>(
            row, i,
            [&](int s, Vec<A> value) __attribute__((always_inline)) {
              keep(value);
#pragma GCC unroll 8
              for (int r = 0; r < R; r++) sums[R - 1 - r][i] += w[r * R + s] * value;
            },
            indices_to<R>{});
    }
    if (t >= R - 1) {
#pragma GCC unroll 8
      for (int i = 0; i < V; i++) store_some<A>(target + i * L, sums[0][i], i < V - 1 ? L : last_lanes);
      target += target_row;
    }
#pragma GCC unroll 8
    for (int i = 0; i < V; i++) {
#pragma GCC unroll 8
      for (int k = 0; k + 1 < R; k++) sums[k][i] = sums[k + 1][i];
      sums[R - 1][i] = start;
    }
  }
}

// sums [R R, L] += dy times x
template <class A, int R, int V> void window_wgrad(const Band<A>& band, const A* dy, A* sums) {
  constexpr int L = kLanes<A>;
  Vec<A> acc[R * R], grad[R][V] = {};
#pragma GCC unroll 32
  for (int i = 0; i < R * R; i++) acc[i] = load<A>(sums + i * L);
  A counted[L];  // lanes past the end of a row may hold anything in x, infinity too: they must not meet dy's zeros
  for (int l = 0; l < L; l++) counted[l] = l < band.last_lanes ? A(1) : A(0);
  const auto counts = load<A>(counted) != Vec<A>{};
  const unsigned mask = inside(0, band.last_lanes, L);
  unsigned masks[V + 2];
#pragma GCC unroll 8
  for (int i = 0; i < V + 2; i++) masks[i] = band.masks[i];
  const A* from = band.source;
  for (int t = 0; t < band.rows + R - 1; t++, from += band.source_row, dy += band.target_row) {
#pragma GCC unroll 8
    for (int i = 0; i < V; i++) {
#pragma GCC unroll 8
      for (int k = 0; k + 1 < R; k++) grad[k][i] = grad[k + 1][i];
      grad[R - 1][i] = t >= band.rows ? Vec<A>{} : i < V - 1 ? load<A>(dy + i * L) : load_masked<A>(dy + i * L, mask);
    }
    if (t < band.inside0 || t >= band.inside1) continue;
    RowVectors<A, V> row;
    take_row<A, V>(row, from, masks);
#pragma GCC unroll 8
    for (int i = 0; i < V; i++)
      each_neighbour<A, R>(
          row, i,
          [&](int s, Vec<A> value) __attribute__((always_inline)) {
            if (i == V - 1) value = counts ? value : Vec<A>{};
            keep(value);
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) acc[r * R + s] += grad[R - 1 - r][i] * value;
          },
          indices_to<R>{});
  }
#pragma GCC unroll 32
  for (int i = 0; i < R * R; i++) store<A>(sums + i * L, acc[i]);
}

template <class A> using WindowFunction = void (*)(const Band<A>&, const A*, const A*, A*);
template <class A> using WindowWgradFunction = void (*)(const Band<A>&, const A*, A*);

template <class A, int R, int... V> constexpr WindowFunction<A> window_of(int vectors, indices<V...>) {
  constexpr WindowFunction<A> all[] = {&window<A, R, V + 1>...};
  return all[vectors - 1];
}

template <class A, int R, int... V> constexpr WindowWgradFunction<A> window_wgrad_of(int vectors, indices<V...>) {
  constexpr WindowWgradFunction<A> all[] = {&window_wgrad<A, R, V + 1>...};
  return all[vectors - 1];
}

// The rows of a strip that lie inside the source, where they lie or copied between zeros
template <class A, class T> Lens<const A> see_rows(const Depthwise& d, const Strip& s, const T* plane, A* panel) {
  if constexpr (kMasks && sizeof(T) == sizeof(A))
    if (d.source_in_place) return {plane, d.source.h, 1, 0};
  int first = s.row0 + d.row_offset, end = s.row1 + d.row_offset + d.window - 1;
  if (first < 0) first = 0;
  if (end > d.source_rows) end = d.source_rows;
  for (int h = first; h < end; h++)
    take_columns(d.panel, plane + h * d.source.h, d.source.w, d.source_columns, panel + (h - first) * d.row);
  return {panel + d.panel.left, d.row, 1, first};
}

// f(band, first column, vectors) for each band of a strip
template <class A, class F>
void each_band(const Depthwise& d, const Strip& s, const Lens<const A>& source, int64_t target_row, const F& f) {
  constexpr int L = kLanes<A>;
  const int vectors = (d.target_columns + L - 1) / L, bands = (vectors + kBand - 1) / kBand,
            top = s.row0 + d.row_offset;
  for (int i = 0, first = 0; i < bands; i++) {
    const int v = (vectors - first + bands - i - 1) / (bands - i), column = first * L,
              from = column + d.column_offset + d.window / 2;
    Band<A> band{source.at(top, from),
                 source.row,
                 top < 0 ? -top : 0,
                 d.source_rows - top,
                 {},
                 target_row,
                 s.row1 - s.row0,
                 first + v < vectors ? L : d.target_columns - (vectors - 1) * L};
    for (int k = 0; k < v + 2; k++) band.masks[k] = inside(from + (k - 1) * L, d.source_columns, L);
    f(band, column, v);
    first += v;
  }
}

// The pieces [begin, end): images x strips x channels. weights [channels, R R]
template <class T>
void run_window(const Depthwise& d, const T* source, const acc_t<T>* weights, const acc_t<T>* bias, T* target,
                int64_t begin, int64_t end, acc_t<T>* scratch) {
  using A = acc_t<T>;
  constexpr int L = kLanes<A>;
  A* const w = scratch;
  A* const b = w + d.kernel_taps * L;
  A* const out = b + L;  // [rows of a strip, columns]
  const int64_t out_row = (d.target_columns + L - 1) / L * L;
  A* const panel = out + (d.target_in_place ? 0 : d.rows_per_strip * out_row);
  clear(panel, kMasks && d.source_in_place ? 0 : (d.rows_per_strip + d.window - 1) * d.row);
  for (int64_t piece = begin; piece < end; piece++) {
    const int64_t channel = piece % d.channels;
    const Strip s = strip_of(d, piece / d.channels);
    const Lens<const A> from = see_rows(d, s, source + s.image * d.source.n + channel * d.source.c, panel);
    for (int t = 0; t < d.kernel_taps; t++)
      store<A>(w + t * L, broadcast<A>(weights[channel * d.kernel_taps + (d.flipped ? d.kernel_taps - 1 - t : t)]));
    store<A>(b, broadcast<A>(bias[channel]));

    T* const plane = target + s.image * d.target.n + channel * d.target.c + s.row0 * d.target.h;
    A* to = out;
    int64_t row = out_row;
    if constexpr (sizeof(T) == sizeof(A))
      if (d.target_in_place) to = plane, row = d.target.h;
    each_band(d, s, from, row, [&](const Band<A>& band, int column, int vectors) {
      using all = indices_to<kBand>;
      (d.window == 3 ? window_of<A, 3>(vectors, all{}) : window_of<A, 5>(vectors, all{}))(band, w, b, to + column);
    });
    for (int i = 0; i < s.row1 - s.row0 && !d.target_in_place; i++)
      give_columns(out + i * out_row, d.target_columns, plane + i * d.target.h, d.target.w);
  }
}

template <class T>
void run(const Depthwise& d, const T* source, const acc_t<T>* weights, const acc_t<T>* bias, T* target, int64_t begin,
         int64_t end, char* scratch) {
  (d.window   ? &run_window<T>
   : d.planes ? &run_planes<T>
              : &run_pixels<T>)(d, source, weights, bias, target, begin, end, reinterpret_cast<acc_t<T>*>(scratch));
}

}  // namespace convlab::CONVLAB_ISA::depthwise
