// Depthwise convolution of planes with the usual filters, 3 x 3 and 5 x 5 without stride, and rows of 3, 5, 7 and 9: a band
// of up to four vectors of columns slides down the rows. (Of one dimension, along long rows: along_row.h.)
//
// What it does    A row of the source is loaded once, meets all taps and is gone: the sums of as many rows of the
//                 target as the filter has wait in registers. What taps to the left and right need is shifted out of
//                 neighbouring vectors, not loaded again. Masks stand for the zeros around a plane where the machine
//                 has them; elsewhere a strip's rows are copied between zeros, and neighbouring columns are loaded from
//                 there.
// Against tiles   (depthwise.kernel.cpp) no copy, no load astride two cache lines but where rows themselves begin within a line.
// What bounds it  multiply-adds; the last vector of a row is seldom full.
#pragma once
#include "cpu/conv2d/depthwise/strip_sources.h"

namespace convlab::CONVLAB_ISA::depthwise {

#if defined(__AVX512F__)
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
template <class A> CONVLAB_INLINE Vec<A> load_masked(const A* p, unsigned) { return load<A>(p); }
#endif

constexpr int kBand = 4;  // vectors of columns: with three rows of sums and nine weights they fill 32 registers

// Which of the L elements from column `first` on lie in [0, columns)
inline unsigned inside(int first, int columns, int lanes) {
  const int begin = first < 0 ? -first : 0, end = columns - first < lanes ? columns - first : lanes;
  return begin < end ? (1u << end) - (1u << begin) : 0;
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
  Ending ending;
};

// The V + 2 vectors of a row, or what neighbouring columns are loaded from
template <class A, int V> struct RowVectors {
  const A* from;
  Vec<A> v[V + 2];
};

template <class A, int V>
CONVLAB_INLINE void load_row(RowVectors<A, V>& row, const A* from, const unsigned (&masks)[V + 2]) {
  constexpr int L = kLanes<A>;
  row.from = from;
  if constexpr (kMasks) {
    row.v[0] = masks[0] ? load_masked<A>(from - L, masks[0]) : Vec<A>{};
#pragma GCC unroll 8
    for (int i = 1; i <= V; i++) row.v[i] = load_masked<A>(from + (i - 1) * L, masks[i]);
    row.v[V + 1] = masks[V + 1] ? load_masked<A>(from + V * L, masks[V + 1]) : Vec<A>{};
  }
}

// Vector i, whose first element is `at`, shifted by d columns
template <class A, int V, int d> CONVLAB_INLINE Vec<A> neighbour(const RowVectors<A, V>& row, int i, int64_t at) {
  if constexpr (kMasks) return shifted<A, d>(row.v[i], row.v[i + 1], row.v[i + 2]);
  else return load<A>(row.from + at + d);
}

// f(band, first column, vectors) for each band of a strip
template <class A, class F>
void each_band(const Depthwise& d, const Strip& s, const Lens<const A>& source, int64_t target_row, const F& f) {
  constexpr int L = kLanes<A>;
  const int columns = d.product.columns.target, vectors = (columns + L - 1) / L, bands = (vectors + kBand - 1) / kBand,
            top = s.row0 + d.window.row_offset;
  for (int i = 0, first = 0; i < bands; i++) {
    const int v = (vectors - first + bands - i - 1) / (bands - i), column = first * L,
              from = column + d.window.column_offset + d.window.columns / 2;
    Band<A> band{source.at(top, from),
                 source.row,
                 top < 0 ? -top : 0,
                 d.product.rows.source - top,
                 {},
                 target_row,
                 s.row1 - s.row0,
                 first + v < vectors ? L : columns - (vectors - 1) * L,
                 d.ending};
    for (int k = 0; k < v + 2 && kMasks; k++) band.masks[k] = inside(from + (k - 1) * L, d.product.columns.source, L);
    f(band, column, v);
    first += v;
  }
}

}  // namespace convlab::CONVLAB_ISA::depthwise
