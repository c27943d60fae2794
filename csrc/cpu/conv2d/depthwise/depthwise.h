// What `depthwise` asks of its kernels: rectangles of the target, each reached by the same taps everywhere. In forward
// and dgrad the target is summed; in wgrad target stands for dy and source for x. Torch-free, and for kernels as well.
#pragma once
#include "cpu/conv2d/product.h"
#include "cpu/stub.h"
#include "geometry/ending.h"

namespace convlab {
namespace depthwise {

constexpr int kLargestGroup = 8;

struct Tap {
  int64_t source;  // elements from the position around which taps lie
  int64_t weights;  // (r S + s) group
};

// Taps come in triples first, as far as they go: three whose sources are as far apart as those of neighbouring positions
// along the tiles, so that one load of the source serves three positions. They have weights w, w + weight_step, w + 2
// weight_step.
struct Taps {
  const Tap* list;
  int triples, singles;
  int64_t weight_step;
};

struct Block {
  Places rows, columns;
  int before, after;  // rows of the source that are read, around each of `rows`; before > after: none
  bool down;  // whether tiles run down the columns rather than along the rows
  Taps taps;
};

// Planes with filters of rows x columns, no stride and no dilation go without tiles: x or dy at row p step + row_offset +
// r and column q step + column_offset + s meets w[r, s], or in dgrad the weight that lies opposite. So do pixels that are
// read and written where they lie (pixel_bands.h), these also with a stride.
struct Window {
  int rows = 0, columns = 0;  // 0: there are tiles
  int row_offset = 0, column_offset = 0;
  bool flipped = false;
  int step = 1;
};

// Of pixels: with AVX-512, which has 32 registers
CONVLAB_INLINE constexpr bool slides_over_pixels(const InstructionSet& set) { return set.vector_bytes > 32; }

constexpr int kTapsAtOnce = 9;  // whose weights, or sums of wgrad, stay in registers over a rectangle (rectangles.h)

struct Depthwise {
  Product product;
  int channels, kernel_taps;  // taps: R S group
  bool planes;  // vectors run along rows, plane by plane, and not over channels
  int group = 1;  // channels of a group, side by side in a vector: each meets them all
  Window window{};
  bool long_row = false;  // of planes: the window slides along one long row
  const Block* blocks = nullptr;
  int block_count = 0;
  bool keeps_taps = false;  // kTapsAtOnce in registers, and all are singles; else tiles
  // Tiles read the source where it lies, and blocks know no padding; or a strip's rows are copied between zeros, which
  // stand for what taps read outside. A panel's positions are elements of a plane, taken apart by the stride, or pixels
  // of a vector each.
  bool source_in_place = false, target_in_place = false;
  bool in_pairs = false;  // even and odd columns of a plane are made apart and written together
  RowPanel panel{};
  int64_t row = 0, pixel = 0;  // elements between the source's rows and columns, as tiles see them
  int rows_reached = 0;  // of the source, by any strip
  int vectors_per_piece = 1;  // of channels
  int slices = 1;  // of wgrad
  Ending ending{};  // an activation that is made of sums in registers, if there is one
};

// How many pieces share a strip that has so many vectors of channels
CONVLAB_INLINE int64_t parts_of(const Depthwise& d, int64_t vectors) {
  return (vectors + d.vectors_per_piece - 1) / d.vectors_per_piece;
}

// The places whose targets lie in [begin, end)
CONVLAB_INLINE Places clipped(Places p, int begin, int end) {
  const auto steps = [&](int rows) { return p.at_step == 1 ? rows : rows / p.at_step; };  // a plane of 7 x 7 is small
  const int skipped = p.at < begin ? steps(begin - p.at + p.at_step - 1) : 0;
  const int kept = p.at < end ? steps(end - 1 - p.at) + 1 : 0;
  p.count = (kept < p.count ? kept : p.count) - skipped;
  p.at += skipped * p.at_step, p.from += skipped * p.from_step;
  return p;
}

struct RowRange {
  int first, count;
};

// The rows of the source, also outside, that taps of the target's rows [row0, row1) reach
CONVLAB_INLINE RowRange rows_reached(const Depthwise& d, int row0, int row1) {
  int first = 0, last = 0;
  bool any = false;
  for (int i = 0; i < d.block_count; i++) {
    const Places p = clipped(d.blocks[i].rows, row0, row1);
    if (p.count <= 0 || d.blocks[i].before > d.blocks[i].after) continue;
    const int top = p.from + d.blocks[i].before, bottom = p.from + (p.count - 1) * p.from_step + d.blocks[i].after;
    if (!any || top < first) first = top;
    if (!any || bottom > last) last = bottom;
    any = true;
  }
  return {first, any ? last - first + 1 : 0};
}

// Elements of a row of the target's panel of planes: in pairs, even and odd columns have a half each
CONVLAB_INLINE int64_t panel_row(const Depthwise& d, int lanes) {
  return round_up(d.product.columns.target, d.in_pairs ? 2 * lanes : lanes);
}

// Vectors of channels that are read side by side, where they lie: whole lines, and wgrad's sums stay in the L1
constexpr int kVectorsAtOnce = 16;

CONVLAB_INLINE int vectors_at_once(const Depthwise& d) {
  return d.source_in_place && d.target_in_place && d.group == 1 ? kVectorsAtOnce : 1;
}

// The memory that a thread works in, for sums of type A in vectors of `lanes`: panels of a strip; forward and dgrad also
// a plane's weights and bias, each broadcast. wgrad also sums [R S, lanes] of a chunk, or of vectors_at_once, of pixels
// read up to a vector past their end; of planes two, for whole vectors and for the last vector of a row, and their totals.
template <class A> struct Bench {
  A *weights, *bias, *total, *sums, *target, *source;

  template <class Memory> CONVLAB_INLINE Bench(Memory& memory, const Depthwise& d, int lanes, bool wgrad) {
    const int64_t taps = int64_t(d.kernel_taps) * lanes, columns = d.product.columns.target;
    memory.take(weights, d.planes && !wgrad ? taps : 0);
    memory.take(bias, d.planes && !wgrad ? lanes : 0);
    memory.take(total, d.planes && wgrad ? 2 * taps : 0);
    memory.take(sums, !wgrad ? 0 : d.planes ? 2 * taps : vectors_at_once(d) * taps + lanes);
    memory.take(target, d.target_in_place && !(d.planes && wgrad)
                            ? 0
                            : d.product.rows_per_strip * (d.planes ? panel_row(d, lanes) : columns * lanes));
    memory.take(source, !d.planes && d.source_in_place ? 0 : d.rows_reached * d.row);
  }
};

}  // namespace depthwise

// The pieces [begin, end): strips x parts of the vectors of channels, or x channels. weights [vectors, R S, group, lanes] of
// pixels, [channels, R S] of planes
using DepthwiseFunction = void(const depthwise::Depthwise&, const void* source, const void* weights, const void* bias,
                               void* target, int64_t begin, int64_t end, char* scratch);
CONVLAB_KERNEL(depthwise_pixels, DepthwiseFunction);
CONVLAB_KERNEL(depthwise_planes, DepthwiseFunction);

// Weights of groups -> [vectors, R S, group, lanes]; the last vector covers part of the one before
CONVLAB_KERNEL(pack_groups, void(const Filters&, const void* w, int64_t vectors, void* packed));

// The pieces [begin, end): slices x parts of the vectors of channels, or x channels. sums [slices, as weights]
using DepthwiseWgradFunction = void(const depthwise::Depthwise&, const void* dy, const void* x, void* sums,
                                    int64_t begin, int64_t end, char* scratch);
CONVLAB_KERNEL(depthwise_pixels_wgrad, DepthwiseWgradFunction);
CONVLAB_KERNEL(depthwise_planes_wgrad, DepthwiseWgradFunction);

}  // namespace convlab
