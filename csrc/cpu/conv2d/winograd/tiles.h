// The tiles of a strip, and their sources: V of x, and wgrad's transformed dy.
#pragma once
#include "cpu/conv2d/winograd/tiling.h"
#include "cpu/conv2d/winograd/transform.h"
#include "cpu/simd/transpose.h"

namespace convlab::CONVLAB_ISA::winograd {

using convlab::winograd::Tiling, convlab::winograd::Stack;

using Floats = Vec<float>;
constexpr int kWidth = kLanes<float>;
constexpr int kPanel = kTileVectors * kWidth, kBlock = convlab::winograd::block_of(kPanel);
constexpr int kAhead = 8;  // pixels: channels_last images are read at strides that the hardware does not follow

CONVLAB_INLINE int least(int a, int b) { return a < b ? a : b; }

// Outputs along one dimension of tile i of `count`, which together have `size`
CONVLAB_INLINE int outputs_of(int m, int size, int i) { return least(m, size - i * m); }

struct Run {
  int begin, end;
};

// Small tiles lack points, so tiles are sorted such that those that have a point are a run: those of the last row, inner
// ones, those of the last column, the corners.
struct Runs {
  Run all[4];
  int m, height, width;  // of the last row's and the last column's tiles

  CONVLAB_INLINE const Run& of(int i, int j) const {
    return all[!has_point(m, height, i) + 2 * !has_point(m, width, j)];
  }
};

// The tiles of the rows [row0, row1) of all images; places: of the tiles in their order in the images
inline Runs sort_tiles(const Tiling& p, int64_t row0, int64_t row1, int* places) {
  const int rows = p.tile_rows(), columns = p.tile_columns();
  const bool small_rows = p.last_height() < p.m, small_columns = p.last_width() < p.m;
  int lower = 0;  // rows of tiles
  for (int64_t row = row0; row < row1; row++) lower += small_rows && row % rows == rows - 1;
  const int upper = int(row1 - row0) - lower, inner = columns - small_columns;
  const int sizes[4] = {lower * inner, upper * inner, upper * small_columns, lower * small_columns};
  int next[4] = {0, sizes[0], sizes[0] + sizes[1], sizes[0] + sizes[1] + sizes[2]};
  const int last_column = next[2], corners = next[3], end = corners + sizes[3];
  for (int64_t row = row0; row < row1; row++)
    for (int column = 0; column < columns; column++) {
      const bool last_row = small_rows && row % rows == rows - 1, last = small_columns && column == columns - 1;
      *places++ = next[last_row ? (last ? 3 : 0) : last ? 2 : 1]++;
    }
  return {
      {{0, end}, {sizes[0], corners}, {0, last_column}, {sizes[0], last_column}}, p.m, p.last_height(), p.last_width()};
}

// Vectors that hold `channels`, of a block
CONVLAB_INLINE int vectors_of(int channels) {
  return kBlock == kWidth || channels <= kWidth ? 1 : (least(channels, kBlock) + kWidth - 1) / kWidth;
}

// A block of channels of an image's rows [row0, row1), where they lie or in a panel
struct Pixels {
  const float* at;
  int64_t row, column;  // elements from one to the next
  int row0, row1, columns, vectors;
};

// Rows [row0, row1) of an image, from its first channel on, of which `channels` are left; panel [rows, columns, block]
inline Pixels look(const float* image, const Strides& strides, int row0, int row1, int columns, int channels,
                   float* panel) {
  const int vectors = vectors_of(channels), count = (row1 - row0) * columns;
  const float* const from = image + row0 * strides.h;
  if (strides.c == 1 && channels >= kBlock) return {from, strides.h, strides.w, row0, row1, columns, vectors};
  if (strides.c == 1)
    for (int i = 0; i < count; i++)
      for (int v = 0; v < vectors; v++)
        store<float>(panel + i * kBlock + v * kWidth,
                     load_some<float>(from + i * strides.w + v * kWidth, channels - v * kWidth));
  else transpose_in(from, strides.c, least(channels, kBlock), count, panel, kBlock);
  return {panel, int64_t(columns) * kBlock, kBlock, row0, row1, columns, vectors};
}

// What tiles are made of x: m + 2 rows and columns, of which tiles with n outputs need n + 2
template <int m, int n> struct OfInput {
  static constexpr int kSize = m + 2, kNeeded = n + 2;
  CONVLAB_INLINE static void transform(const Floats (&x)[m + 2], Floats (&t)[m + 2]) { transform_input<m, n>(x, t); }
};
// and of dy, a filter of n taps
template <int m, int n> struct OfGrad {
  static constexpr int kSize = m, kNeeded = n;
  CONVLAB_INLINE static void transform(const Floats (&dy)[m], Floats (&t)[m + 2]) { transform_filter<m, n, n>(dy, t); }
};

alignas(64) constexpr float kZeros[kBlock] = {};

// `count` columns of a row of tiles, from the pixel (row, column) on, which may lie outside -> lines [count, m + 2, block]
template <int m, int n, class Of>
[[gnu::noinline]] void along_columns(const Pixels& pixels, int row, int column, int count, float* lines) {
  const float* at[Of::kNeeded];
  int64_t step[Of::kNeeded];
#pragma GCC unroll 8
  for (int i = 0; i < Of::kNeeded; i++) {
    const bool inside = row + i >= pixels.row0 && row + i < pixels.row1;
    at[i] =
        inside ? pixels.at + (row + i - pixels.row0) * pixels.row + (column > 0 ? column * pixels.column : 0) : kZeros;
    step[i] = inside ? pixels.column : 0;
  }
  for (int c = column; c < column + count; c++, lines += (m + 2) * kBlock) {
    if (c < 0 || c >= pixels.columns) {
      for (int i = 0; i < (m + 2) * kBlock; i += kWidth) store<float>(lines + i, Floats{});
      continue;
    }
    for (int v = 0; v < (kBlock == kWidth ? 1 : pixels.vectors); v++) {
      Floats x[Of::kSize] = {}, t[m + 2];
#pragma GCC unroll 8
      for (int i = 0; i < Of::kNeeded; i++) x[i] = load<float>(at[i] + v * kWidth);
      Of::transform(x, t);
#pragma GCC unroll 8
      for (int i = 0; i < m + 2; i++)
        if (has_point(m, n, i)) store<float>(lines + i * kBlock + v * kWidth, t[i]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < Of::kNeeded; i++) {
      if (i >= Of::kNeeded - m) __builtin_prefetch(at[i] + kAhead * step[i]);
      at[i] += step[i];
    }
  }
}

// One tile of lines -> `to`, its points' matrices `stride` apart; the tile after it goes to `next`. height: the outputs
// it has along columns
template <int m, int n, class Of>
[[gnu::noinline]] void along_rows(const float* lines, int vectors, int height, float* to, const float* next,
                                  int64_t stride) {
  for (int i = 0; i < m + 2; i++) {
    if (!has_point(m, height, i)) continue;
    for (int v = 0; v < (kBlock == kWidth ? 1 : vectors); v++) {
      Floats x[Of::kSize] = {}, t[m + 2];
#pragma GCC unroll 8
      for (int j = 0; j < Of::kNeeded; j++) x[j] = load<float>(lines + (j * (m + 2) + i) * kBlock + v * kWidth);
      Of::transform(x, t);
      float* const row = to + i * (m + 2) * stride + v * kWidth;
#pragma GCC unroll 8
      for (int j = 0; j < m + 2; j++)
        if (has_point(m, n, j)) store<float>(row + j * stride, t[j]);
    }
    // Stores that miss wait for one another, and no prefetcher follows so many streams.
#pragma GCC unroll 8
    for (int j = 0; j < m + 2; j++) __builtin_prefetch(next + (i * (m + 2) + j) * stride, 1);
  }
}

// Calls f<n>() for 1 <= n <= m
template <int m, class F> CONVLAB_INLINE void with_size(int n, F f) {
  if (n == m) return f.template operator()<m>();
  if constexpr (m > 1) with_size<m - 1>(n, f);
}

// A row of tiles of a block of channels -> `to`, tile i at place places[i], `tile` elements each
template <int m, template <int, int> class Of>
void transform_row(const Tiling& p, const Pixels& pixels, int tile_row, int top, int left, const int* places,
                   float* lines, float* to, int64_t tile, int64_t stride) {
  const int tiles = p.tile_columns(), height = outputs_of(m, p.target_rows, tile_row);
  const int count = p.target_columns + Of<m, m>::kSize - m;
  with_size<m>(height,
               [&]<int n>() { along_columns<m, n, Of<m, n>>(pixels, tile_row * m - top, -left, count, lines); });
  for (int i = 0; i < tiles; i++, lines += m * (m + 2) * kBlock) {
    const int width = outputs_of(m, p.target_columns, i);
    float *const place = to + places[i] * tile, *const next = to + places[i + 1 < tiles ? i + 1 : i] * tile;
    if (width == m) along_rows<m, m, Of<m, m>>(lines, pixels.vectors, height, place, next, stride);
    else
      with_size<m - 1>(
          width, [&]<int n>() { along_rows<m, n, Of<m, n>>(lines, pixels.vectors, height, place, next, stride); });
  }
}

// The part of a strip that is in one image
struct Segment {
  int64_t image;
  int row0, row1;  // of tiles
};

CONVLAB_INLINE Segment segment_of(const Tiling& p, int64_t row, int64_t end) {
  const int64_t image = row / p.tile_rows(), first = image * p.tile_rows();
  return {image, int(row - first), int((end - first < p.tile_rows() ? end - first : p.tile_rows()))};
}

// A strip's rows of tiles [row0, row1) of a group's source -> V [points, depth / block, tiles, block]
template <int m>
void transform_inputs(const Tiling& p, const float* source, int group, int64_t row0, int64_t row1, const int* places,
                      float* panel, float* lines, const Stack& inputs) {
  const int tiles = int(row1 - row0) * p.tile_columns();
  for (int64_t row = row0; row < row1;) {
    const Segment s = segment_of(p, row, row1);
    const int first = s.row0 * m - p.top, last = s.row1 * m - p.top + 2;  // rows reached
    const int begin = first < 0 ? 0 : least(first, p.source_rows),
              end = last < begin ? begin : least(last, p.source_rows);
    for (int c = 0; c < p.depth; c += kBlock) {
      const Pixels pixels = look(source + s.image * p.source.n + (int64_t(group) * p.depth + c) * p.source.c, p.source,
                                 begin, end, p.source_columns, p.depth - c, panel);
      float* const to = inputs.at + c * int64_t(tiles);
      for (int i = s.row0; i < s.row1; i++)
        transform_row<m, OfInput>(p, pixels, i, p.top, p.left, places + (row - row0 + i - s.row0) * p.tile_columns(),
                                  lines, to, kBlock, inputs.stride);
    }
    row += s.row1 - s.row0;
  }
}

}  // namespace convlab::CONVLAB_ISA::winograd
