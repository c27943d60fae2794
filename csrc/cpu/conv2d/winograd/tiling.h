// What winograd_2x2 and winograd_4x4 make of a pass of a convolution, as plain data: tiles, strips, and the arrays of a
// thread's workspace. Forward and dgrad are one operation: dgrad's filters are turned, and its tiles begin elsewhere.
// In wgrad source stands for x and target for dy. Torch-free, and for kernels as well.
//
// A tile is m x m outputs. A row of tiles goes over an image's whole width; a strip is some rows of tiles, of one or of
// several images, such that what is made of its source, V, lies in L2 while it is multiplied with all filters. Channels
// of the target come in panels, as wide as a register tile.
#pragma once
#include "cpu/conv2d/product.h"
#include "cpu/conv2d/winograd/points.h"

namespace convlab::winograd {

// Channels that are transformed together, and lie side by side in V for each tile: a cache line of them, or a panel
[[gnu::always_inline]] constexpr int block_of(int panel) { return panel < 16 ? panel : 16; }

// Elements from one point's matrix to the next: an odd number of cache lines, lest they meet in the same sets of L1
[[gnu::always_inline]] constexpr int64_t apart(int64_t floats) {
  return ((floats * 4 + kCacheLine - 1) / kCacheLine | 1) * kCacheLine / 4;
}

struct Tiling {
  int m;
  int images, groups, depth, width;  // source and target channels a group
  int source_rows, source_columns, target_rows, target_columns;
  int top, left;  // row p and column q of the target have their first tap at the source's p - top, q - left
  Strides source, target;
  Filters filters;
  bool turned;  // whether the target's first tap meets the filter's last
  int panel, block;  // channels
  // What is shared among threads: strips x groups x parts in forward and dgrad, slices x groups x parts in wgrad, whose
  // slices have strips summed apart, and are added up in their order.
  int strips, slices, panels_per_part;
  int depth_block;  // source channels whose filters, or whose sums in wgrad, are transformed at a time
  bool kept;  // whether transformed filters stay for all strips, or wgrad's sums from strip to strip

  CONVLAB_INLINE int points() const { return (m + 2) * (m + 2); }
  CONVLAB_INLINE int tile_rows() const { return (target_rows + m - 1) / m; }
  CONVLAB_INLINE int tile_columns() const { return (target_columns + m - 1) / m; }
  // outputs of the last row's and of the last column's tiles
  CONVLAB_INLINE int last_height() const { return target_rows - (tile_rows() - 1) * m; }
  CONVLAB_INLINE int last_width() const { return target_columns - (tile_columns() - 1) * m; }
  CONVLAB_INLINE int panels() const { return (width + panel - 1) / panel; }
  CONVLAB_INLINE int parts() const { return (panels() + panels_per_part - 1) / panels_per_part; }
  // rows of tiles, those of all images, from which strip s begins
  CONVLAB_INLINE int64_t strip_begin(int64_t s) const { return int64_t(images) * tile_rows() * s / strips; }
  CONVLAB_INLINE int64_t filter_elements() const { return groups * filters.group; }  // of w
  // elements from one point's transformed filters, or wgrad's sums, to the next's
  CONVLAB_INLINE int64_t filter_stride() const { return apart(round_up(kept ? depth : depth_block, 2) * panel); }
  CONVLAB_INLINE int64_t strip_rows() const {
    return (int64_t(images) * tile_rows() + strips - 1) / strips;
  }  // at most
};

// Elements of `columns` windows a row, R rows of outputs each, that a block's ending makes of a segment and a block of
// channels
CONVLAB_INLINE int64_t finished_elements(const Tiling& p, int R, int columns) {
  return (p.strip_rows() < p.tile_rows() ? p.strip_rows() : p.tile_rows()) * p.m / R * columns * p.block;
}

// A matrix for each point, `stride` elements apart
struct Stack {
  float* at;
  int64_t stride;
};

// A thread's workspace
struct Arrays {
  int* places;  // of a strip's tiles in V
  Stack inputs;  // V [points, depth / block, tiles, block]
  Stack
      filters;  // U [points, depth_block, panel], or wgrad's dU [panels of a thread, points, depth or depth_block, panel]
  Stack sums;  // M [points, tiles, panel], or in wgrad those of dy
  float* pixels;  // [rows, columns, block] of a strip's source, or of its target
  float* lines;  // [columns, m + 2, block]: a row of tiles, transformed along columns
  float* taps;  // [depth_block, taps, block] of filters
};

template <class Memory> CONVLAB_INLINE Arrays lay_out(Memory& memory, const Tiling& p, bool wgrad) {
  const int64_t tiles = p.strip_rows() * p.tile_columns(), points = p.points();
  const int64_t rows = (p.strip_rows() < p.tile_rows() ? p.strip_rows() : p.tile_rows()) * p.m + 2;
  const int64_t columns = p.source_columns > p.target_columns ? p.source_columns : p.target_columns;
  const int64_t inputs = apart(tiles * round_up(p.depth, p.block)), sums = apart(tiles * p.panel);
  const int64_t panels = wgrad ? (p.kept ? p.panels() : 1) : !p.kept;
  Arrays a;
  a.inputs.stride = inputs, a.filters.stride = p.filter_stride(), a.sums.stride = sums;
  memory.take(a.places, tiles);
  memory.take(a.inputs.at, points * inputs);
  memory.take(a.filters.at, points * p.filter_stride() * panels);
  memory.take(a.sums.at, points * sums);
  memory.take(a.pixels, rows * columns * p.block);
  memory.take(a.lines, (int64_t(p.tile_columns()) * p.m + 2) * (p.m + 2) * p.block);
  memory.take(a.taps, int64_t(p.depth_block) * kTaps * kTaps * p.block);
  return a;
}

}  // namespace convlab::winograd
