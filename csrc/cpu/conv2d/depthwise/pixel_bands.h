// Depthwise convolution of channels_last with the usual filters, 3 x 3, 5 x 5 and 7 x 7, the first two also at stride 2
// in forward: a band of a few places, of one vector of channels, slides down the rows.
//
// What it does    By 3 x 3 without stride, as bands.h does for planes: a row of the source is loaded once, meets all taps
//                 and is gone; the sums of three rows of the target wait in registers beside the nine weights. Others
//                 make one row of sums at a time, and load an element once for each row of taps. Rows are asked for
//                 ahead, the target's as well, because the hardware does not foresee steps from row to row. All vectors
//                 of a piece go over a band before the next one begins, so that lines side by side are read soon after
//                 one another.
// Against wide tiles  (wide_tiles.h) 9 loads for 63 multiply-adds, of seven places, where those need 36 for 48, and a line
//                 comes to the L1 once, not three times: 1.3 to 2.2 times as fast, larger filters up to 3.3. Where
//                 pixels lie so many lines apart that the L1 does not hold a band's rows, 3 x 3 takes wide tiles.
// What bounds it  multiply-adds and memory, about alike.
#pragma once
#include "cpu/conv2d/block/ending.h"
#include "cpu/conv2d/depthwise/strip_sources.h"

namespace convlab::CONVLAB_ISA::depthwise {

constexpr int kBandPlaces = 7;  // three rows of sums, nine weights and a value fill 32 registers
constexpr int kRowsWritten = 3;  // ahead: the target's lines are asked for, whose first write waits for all of memory
constexpr int kRowPlaces = 14;  // one row of sums, and the weights of a row of taps

// Row t of the source, of those in [inside0, inside1), meets taps r of the target's rows (t - r) / step; of the columns
// that the band reaches, [column0, column1) exist. `source`: the first row and column that taps reach, also outside.
template <class A> struct PixelBand {
  const A* source;
  int64_t source_row, source_column;
  int inside0, inside1, column0, column1;
  A* target;
  int64_t target_row, target_column;
  int rows;
  Ending ending;
};

// M places; whole: all columns exist. weights [9, L]
template <class A, int M, bool whole>
void pixel_band(const PixelBand<A>& band, const A* weights, bool flipped, const A* bias) {
  constexpr int L = kLanes<A>;
  Vec<A> w[9], sums[3][M];
#pragma GCC unroll 9
  for (int i = 0; i < 9; i++) w[i] = load<A>(weights + (flipped ? 8 - i : i) * L);
#pragma GCC unroll 8
  for (int m = 0; m < M; m++) sums[0][m] = sums[1][m] = sums[2][m] = load<A>(bias);

  const A* row = band.source;
  A* target = band.target;
  const int rows = band.rows, inside0 = band.inside0, inside1 = band.inside1;
  const int64_t next_row = band.source_row, column = band.source_column, target_column = band.target_column;
  for (int t = 0; t < rows + 2; t++, row += next_row) {
    if (t >= inside0 && t < inside1) {
      const A* x = row;
#pragma GCC unroll 16
      for (int j = 0; j < M + 2; j++, x += column, keep(x)) {
        if (!whole && (j < band.column0 || j >= band.column1)) continue;
        __builtin_prefetch(x + next_row);
        Vec<A> value = load<A>(x);
        keep(value);
#pragma GCC unroll 4
        for (int s = 0; s < 3; s++)
#pragma GCC unroll 4
          for (int r = 0; r < 3; r++)
            if (j >= s && j - s < M) sums[2 - r][j >= s && j - s < M ? j - s : 0] += w[r * 3 + s] * value;
      }
    }
    if (t >= 2) {
      activate<A>(band.ending, sums[0]);
      A* to = target;
#pragma GCC unroll 8
      for (int m = 0; m < M; m++, to += target_column, keep(to)) {
        store<A>(to, sums[0][m]);
        __builtin_prefetch(to + kRowsWritten * band.target_row, 1);
      }
      target += band.target_row;
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; m++) sums[0][m] = sums[1][m], sums[1][m] = sums[2][m], sums[2][m] = load<A>(bias);
  }
}

// The same by S x S, where there are no registers for all weights and as many rows of sums, or at stride `step`: M places of
// one row of the target at a time, and the weights of one row of taps. A band's rows wait in the L1 for the next ones.
// weights [S S, L]
template <class A, int S, int step, int M, bool whole>
void pixel_rows(const PixelBand<A>& band, const A* weights, bool flipped, const A* bias) {
  constexpr int L = kLanes<A>;
  const A *row = band.source, *const last_weight = weights + (S * S - 1) * L;
  A* target = band.target;
  const int64_t next_row = band.source_row, column = band.source_column, target_column = band.target_column;
  for (int p = 0; p < band.rows; p++, row += step * next_row, target += band.target_row) {
    Vec<A> sums[M];
#pragma GCC unroll 16
    for (int m = 0; m < M; m++) sums[m] = load<A>(bias);
    const A* from = row;
    for (int r = 0; r < S; r++, from += next_row) {
      if (p * step + r < band.inside0 || p * step + r >= band.inside1) continue;
      Vec<A> w[S];
#pragma GCC unroll 8
      for (int s = 0; s < S; s++) w[s] = load<A>(flipped ? last_weight - (r * S + s) * L : weights + (r * S + s) * L);
      const A* x = from;
#pragma GCC unroll 32
      for (int j = 0; j < (M - 1) * step + S; j++, x += column, keep(x)) {
        if (!whole && (j < band.column0 || j >= band.column1)) continue;
        if (step == 1 && r == S - 1) __builtin_prefetch(x + 2 * next_row);
        Vec<A> value = load<A>(x);
        keep(value);
#pragma GCC unroll 8
        for (int s = 0; s < S; s++)
          if (const int m = (j - s) / step; j >= s && (j - s) % step == 0 && m < M) sums[m] += w[s] * value;
      }
    }
    activate<A>(band.ending, sums);
    A* to = target;
#pragma GCC unroll 16
    for (int m = 0; m < M; m++, to += target_column, keep(to)) store<A>(to, sums[m]);
  }
}

template <class A, int S, int step, bool whole> auto pixel_rows_of(int places) {
  return of_size<kRowPlaces>(places, [](auto m) { return &pixel_rows<A, S, step, m, whole>; });
}
template <class A, bool whole> auto pixel_band_of(int places, int S, int step) {
  if (step == 2) return S == 3 ? pixel_rows_of<A, 3, 2, whole>(places) : pixel_rows_of<A, 5, 2, whole>(places);
  if (S > 3) return S == 5 ? pixel_rows_of<A, 5, 1, whole>(places) : pixel_rows_of<A, 7, 1, whole>(places);
  return of_size<kBandPlaces>(places, [](auto m) { return &pixel_band<A, m, whole>; });
}

// A strip of an image whose pixels are read and written where they lie, its vectors of channels [first, last)
template <class A>
void pixel_bands(const Depthwise& d, const Strip& s, const A* source, const A* weights, const A* bias, A* target,
                 int first, int last) {
  constexpr int L = kLanes<A>;
  const Strides &from = d.product.source, &to = d.product.target;
  const int columns = d.product.columns.source, S = d.window.columns, step = d.window.step,
            most = S == 3 && step == 1 ? kBandPlaces : kRowPlaces, top = s.row0 * step + d.window.row_offset;
  for (int q = 0, places; q < d.product.columns.target; q += places) {
    places = next_tile(d.product.columns.target - q, most);
    const int left = q * step + d.window.column_offset, right = columns - left, reach = (places - 1) * step + S;
    PixelBand<A> band{source + top * from.h + left * from.w,
                      from.h,
                      from.w,
                      top < 0 ? -top : 0,
                      d.product.rows.source - top,
                      left < 0 ? -left : 0,
                      right < reach ? right : reach,
                      target + s.row0 * to.h + q * to.w,
                      to.h,
                      to.w,
                      s.row1 - s.row0,
                      d.ending};
    const bool whole = band.column0 == 0 && band.column1 == reach;
    const auto f = whole ? pixel_band_of<A, true>(places, S, step) : pixel_band_of<A, false>(places, S, step);
    for (int v = first; v < last; v++) {
      const int channel = first_channel(d.channels, v, L);
      PixelBand<A> of_vector = band;
      of_vector.source += channel, of_vector.target += channel;
      f(of_vector, weights + int64_t(v) * S * S * L, d.window.flipped, bias + channel);
    }
  }
}

}  // namespace convlab::CONVLAB_ISA::depthwise
