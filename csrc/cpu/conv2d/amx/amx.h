// What `amx` asks of its kernels, as plain data. Torch-free, and for kernels as well.
#pragma once
#include "cpu/conv2d/product.h"
#include "cpu/stub.h"
#include "geometry/axis.h"
#include "geometry/ending.h"

namespace convlab {
namespace amx {

constexpr int kRows = 16, kColumns = 16, kDepth = 32;  // of tile registers: of sums, and what their products sum over
constexpr int kPanel = 2 * kColumns;  // target channels that a step meets
constexpr int64_t kNearWeights = 64 << 10;  // bytes: so many meet two tiles of pixels before the next are looked at

// Positions of a target along one dimension that the same taps reach: at + i at_step, i < count, of the target read
// from + i from_step + offsets[t] of the source, with tap taps[t] of the filter; offsets ascend. Positions of the source
// before its first and behind its last are zeros.
struct Phase {
  int at, at_step, count, from, from_step;
  int tap_count;
  const int *taps = nullptr, *offsets = nullptr;
};

// Where a row phase meets a column phase. Taps of a row that lie side by side in the panel are one run, which is cut into
// blocks of `depth` elements: a step of the product each.
struct Segment {
  int rows, columns;  // phases
  int run_taps, runs;  // of a row of the filter
  int blocks, depth;  // of a run
  int64_t weights;  // bytes, from the start of a panel of channels
};

struct AmxProduct {
  Product product;  // without tap classes
  Filters filters;
  const Phase *rows, *columns;
  int row_phases;
  const Segment* segments;
  int segment_count;
  int pixel_channels;  // of a panel: `depth` and zeros, so that blocks come out even
  int first_column, panel_columns;  // of a panel, as columns of the source
  bool in_place;  // the source is read where it lies
  int64_t panel_rows, panel_elements, tiles, most_runs;  // of a strip, at most
  int64_t panel_weights;  // bytes of a panel of channels
  int panels_per_piece;
  Ending ending{};

  CONVLAB_INLINE int panels() const { return (product.width + kPanel - 1) / kPanel; }
  CONVLAB_INLINE int parts() const { return (panels() + panels_per_piece - 1) / panels_per_piece; }
  CONVLAB_INLINE bool channels_last() const { return product.target.c == 1; }
};

// Positions of a segment that a tile register holds: their first, and where the source of their first lies
struct PixelTile {
  int64_t source;  // bytes
  int n, row, column;  // of the strip's images and of the segment
};

struct AmxBench {
  uint16_t* source;  // a panel [images, rows, columns, channels]
  PixelTile* tiles;
  int64_t* runs;  // bytes from a pixel to what a run of taps reads
  float* sums;  // of two tiles of pixels and a panel of channels

  template <class Memory> CONVLAB_INLINE AmxBench(Memory& memory, const AmxProduct& p) {
    memory.take(source, p.in_place ? 0 : p.panel_elements);
    memory.take(tiles, p.tiles);
    memory.take(runs, p.most_runs);
    memory.take(sums, 2 * kRows * kPanel);
  }
};

// wgrad sums over positions of dy, rows of them with gaps between, `pitch` apart, as x has its zeros: a tap reads x at the
// same distance from every position, where x is taken apart by the stride into planes. Gaps of dy are zeros.
struct AmxWgrad {
  Product product;  // source: x, target: dy
  Filters filters;
  Axis vertical, horizontal;
  int row_phases, column_phases;  // of x, by the stride
  int pitch, image_rows;  // from row to row, in positions, and rows from image to image
  int64_t steps, plane;  // of a strip, at most: 32 positions each; elements of a plane of x
  int slices;  // of the strips
  int blocks_per_part, pairs_per_share;  // of channels of x; of vectors of dy's

  CONVLAB_INLINE int64_t planes() const { return int64_t(row_phases) * column_phases; }
  CONVLAB_INLINE int vectors() const { return (product.width + kColumns - 1) / kColumns; }
  CONVLAB_INLINE int pairs() const { return (vectors() + 1) / 2; }
  CONVLAB_INLINE int blocks() const { return (product.depth + kPanel - 1) / kPanel; }
  CONVLAB_INLINE int parts() const { return (blocks() + blocks_per_part - 1) / blocks_per_part; }
  CONVLAB_INLINE int shares() const { return (pairs() + pairs_per_share - 1) / pairs_per_share; }
  CONVLAB_INLINE int64_t sums() const {  // floats of a slice and a group: [vectors, R S, depth, kColumns]
    return int64_t(vectors()) * filters.R * filters.S * product.depth * kColumns;
  }
};

struct AmxWgradBench {
  uint16_t* dy;  // [vectors, pairs of positions, kColumns, 2]
  uint16_t* x;  // [channels, planes, plane]

  template <class Memory> CONVLAB_INLINE AmxWgradBench(Memory& memory, const AmxWgrad& a) {
    memory.take(dy, 2 * a.pairs_per_share * a.steps * kDepth * kColumns);
    memory.take(x, (a.product.depth < kPanel ? a.product.depth : kPanel) * a.planes() * a.plane);
  }
};

}  // namespace amx

// The vectors [begin, end) of all groups' panels, two a panel -> packed; scratch: a vector's weights as floats
CONVLAB_KERNEL(amx_pack,
               void(const amx::AmxProduct&, const void* w, void* packed, int64_t begin, int64_t end, void* scratch));
// bias: floats [groups, panels, kPanel]
CONVLAB_KERNEL(amx, void(const amx::AmxProduct&, const void* source, const void* weights, const void* bias,
                         void* target, int64_t begin, int64_t end, char* scratch));

// dy, x -> sums [slices, groups, vectors, R S, depth, kColumns]; the pieces are [slices, groups, shares, parts]
CONVLAB_KERNEL(amx_wgrad, void(const amx::AmxWgrad&, const void* dy, const void* x, float* sums, int64_t begin,
                               int64_t end, char* scratch));

}  // namespace convlab
