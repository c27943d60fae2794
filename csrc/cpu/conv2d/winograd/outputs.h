// Sums of the points -> the target, in its own layout.
#pragma once
#include "cpu/conv2d/winograd/tiles.h"

namespace convlab::CONVLAB_ISA::winograd {

// Whether anything that went by was not finite: such outputs are computed again, by the definition
struct Watch {
  Floats sum = {};

  CONVLAB_INLINE void see(Floats v) { sum += v * 0.f; }
  bool unfinite() const {
    bool any = false;
    for (int l = 0; l < kWidth; l++) any |= sum[l] != 0;
    return any;
  }
};

// The matrices of points `stride` apart, for tiles of height x width points -> outputs [rows, columns]
template <int m, int height, int width, int rows, int columns>
CONVLAB_INLINE void outputs_of_tile(const float* from, int64_t stride, Floats (&y)[rows][columns]) {
  Floats lines[rows][m + 2];
#pragma GCC unroll 8
  for (int j = 0; j < m + 2; j++) {
    if (!has_point(m, width, j)) continue;
    Floats t[m + 2], column[rows];
#pragma GCC unroll 8
    for (int i = 0; i < m + 2; i++)
      if (has_point(m, height, i)) t[i] = load<float>(from + (i * (m + 2) + j) * stride);
    transform_output<m, height, rows>(t, column);
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++) lines[i][j] = column[i];
  }
#pragma GCC unroll 4
  for (int i = 0; i < rows; i++) transform_output<m, width, columns>(lines[i], y[i]);
}

// A tile's outputs of a vector of channels, with bias -> `to`, rows and columns so many elements apart
template <int m, int height, int width>
[[gnu::noinline]] void put_tile(const float* from, int64_t stride, const Floats& bias, float* to, int64_t row,
                                int64_t column, int lanes, Watch& watch) {
  Floats y[height][width];
  outputs_of_tile<m, height, width>(from, stride, y);
  Watch seen = watch;
#pragma GCC unroll 4
  for (int i = 0; i < height; i++)
#pragma GCC unroll 4
    for (int j = 0; j < width; j++) {
      y[i][j] += bias;
      seen.see(y[i][j]);
    }
  watch = seen;
  if (lanes == kWidth)
#pragma GCC unroll 4
    for (int i = 0; i < height; i++)
#pragma GCC unroll 4
      for (int j = 0; j < width; j++) store<float>(to + i * row + j * column, y[i][j]);
  else
    for (int i = 0; i < height; i++)
      for (int j = 0; j < width; j++) store_some<float>(to + i * row + j * column, y[i][j], lanes);
}

template <int m, int height>
CONVLAB_INLINE void put_tile_of(int width, const float* from, int64_t stride, const Floats& bias, float* to,
                                int64_t row, int64_t column, int lanes, Watch& watch) {
  with_size<m>(width, [&]<int n>() { put_tile<m, height, n>(from, stride, bias, to, row, column, lanes, watch); });
}

// The rows of tiles of a segment, for a block of channels of which there are `channels` -> target, from the segment's
// first row on; panel [rows, columns, block]. Without a target they stay in the panel
template <int m>
void put_segment(const Tiling& p, const Segment& s, const float* sums, int64_t stride, const int* places,
                 const float* bias, float* target, int channels, float* panel, Watch& watch) {
  const bool in_place = target && p.target.c == 1;
  const int64_t column = in_place ? p.target.w : kBlock, row = in_place ? p.target.h : p.target_columns * kBlock;
  const int columns = p.tile_columns(), vectors = vectors_of(channels);
  Floats shifts[kBlock / kWidth] = {};
  for (int v = 0; v < vectors && bias; v++) shifts[v] = load_some<float>(bias + v * kWidth, channels - v * kWidth);
  float* to = in_place ? target : panel;
  for (int i = s.row0; i < s.row1; i++, to += m * row)
    with_size<m>(outputs_of(m, p.target_rows, i), [&]<int height>() {
      for (int j = 0; j < columns; j++) {
        const float* const from = sums + places[(i - s.row0) * columns + j] * kPanel;
        const int width = outputs_of(m, p.target_columns, j);
        float* const tile = to + j * m * column;
        if (in_place && j + 1 < columns)
#pragma GCC unroll 4
          for (int a = 0; a < height; a++)
#pragma GCC unroll 4
            for (int b = 0; b < m; b++) __builtin_prefetch(tile + a * row + (b + m) * column, 1);
        for (int v = 0; v < vectors; v++)
          put_tile_of<m, height>(width, from + v * kWidth, stride, shifts[v], tile + v * kWidth, row, column,
                                 in_place ? least(channels - v * kWidth, kWidth) : kWidth, watch);
      }
    });
  const int rows = least(s.row1 * m, p.target_rows) - s.row0 * m;
  for (int v = 0; v < vectors && target && !in_place; v++)
    transpose_out(panel + v * kWidth, kBlock, rows * p.target_columns, least(channels - v * kWidth, kWidth),
                  target + v * kWidth * p.target.c, p.target.c);
}

}  // namespace convlab::CONVLAB_ISA::winograd
