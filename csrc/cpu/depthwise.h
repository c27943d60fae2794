// What a depthwise convolution asks of the CPU's kernels, as plain data: rectangles of the target, each reached by the
// same taps everywhere. In forward and dgrad the target is summed; in wgrad target stands for dy and source for x.
// Torch-free.
#pragma once
#include "cpu/product.h"

namespace convlab {

// Places at, at + at_step, ... of the target have their taps around places from, from + from_step, ... of the source:
// from place `before` to place `after` as seen from there; with no tap at all, before > after.
struct DepthwisePlaces {
  int count, at, at_step, from, from_step, before, after;
};

struct DepthwiseTap {
  int64_t source;  // elements from the place around which taps lie
  int64_t weights;  // r S + s
};

// Taps come in triples first, as far as they go: three whose sources are as far apart as those of neighbouring places
// along the tiles, so that one load of the source serves three places. They have weights w, w + weight_step, w + 2
// weight_step.
struct DepthwiseTaps {
  const DepthwiseTap* list;
  int triples, singles;
  int64_t weight_step;
};

struct DepthwiseBlock {
  DepthwisePlaces rows, columns;
  bool down;  // whether tiles run down the columns rather than along the rows
  DepthwiseTaps taps;
};

struct Depthwise {
  int images, channels, kernel_taps;
  int source_rows, source_columns, target_rows, target_columns;
  Strides source, target;  // of the tensors
  int rows_per_strip;  // of the target
  bool planes;  // whether vectors run along rows, plane by plane, and not over channels
  const DepthwiseBlock* blocks;
  int block_count;
  // Tiles read the source where it lies, and blocks know no padding; or a strip's rows are copied between zeros, which
  // stand for what taps read outside. A panel's places are elements of a plane, taken apart by the stride, or pixels of
  // a vector each.
  bool source_in_place;
  RowPanel panel;
  int64_t row, pixel;  // elements between the source's rows and columns, as tiles see them
  bool target_in_place;  // tiles read or write the target where it lies
  int vectors_per_piece;  // wgrad over channels
  // Planes with filters of window x window, no stride and no dilation go without tiles: x or dy at row p + row_offset +
  // r and column q + column_offset + s meets w[r, s], or in dgrad the weight that lies opposite
  int window, row_offset, column_offset;
  bool flipped;

  int64_t strips_per_image() const { return (target_rows + rows_per_strip - 1) / rows_per_strip; }
};

// The places whose targets lie in [begin, end)
[[gnu::always_inline]] inline DepthwisePlaces clipped(DepthwisePlaces p, int begin, int end) {
  const int skipped = p.at < begin ? (begin - p.at + p.at_step - 1) / p.at_step : 0;
  const int kept = p.at < end ? (end - 1 - p.at) / p.at_step + 1 : 0;
  p.count = (kept < p.count ? kept : p.count) - skipped;
  p.at += skipped * p.at_step, p.from += skipped * p.from_step;
  return p;
}

struct RowRange {
  int first, count;
};

// The rows of the source, also outside, that taps of the target's rows [row0, row1) reach
[[gnu::always_inline]] inline RowRange rows_reached(const Depthwise& d, int row0, int row1) {
  int first = 0, last = 0;
  bool any = false;
  for (int i = 0; i < d.block_count; i++) {
    const DepthwisePlaces p = clipped(d.blocks[i].rows, row0, row1);
    if (p.count <= 0 || p.before > p.after) continue;
    const int top = p.from + p.before, bottom = p.from + (p.count - 1) * p.from_step + p.after;
    if (!any || top < first) first = top;
    if (!any || bottom > last) last = bottom;
    any = true;
  }
  return {first, any ? last - first + 1 : 0};
}

}  // namespace convlab
