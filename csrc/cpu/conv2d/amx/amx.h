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
  bool planes;  // source and target lie in planes, and a panel is pairs of elements' rows, taken apart by the stride
  bool taps_in_panel;  // of planes: elements are channels for each tap of a row, so that few channels fill a step
  bool whole_rows;  // of planes: without gaps between them, or with those that taps in the panel pass over
  int elements;  // of a panel of planes, with zeros: even
  int rows_apart = 1, columns_apart = 1, row_phases_read = 1, column_phases_read = 1;  // of planes
  int64_t panel_rows, panel_elements, tiles, most_runs;  // of a strip, at most
  int64_t panel_weights;  // bytes of a panel of channels
  int panels_per_piece;
  Ending ending{};

  CONVLAB_INLINE int panels() const { return (product.width + kPanel - 1) / kPanel; }
  CONVLAB_INLINE int parts() const { return (panels() + panels_per_piece - 1) / panels_per_piece; }
};

// How a panel of planes lies: [pairs of elements, row phases, column phases, images, rows, columns] of two elements each
struct PlanesPanel {
  int rows, columns;  // of a phase
  int64_t row, image, column_phase, row_phase, pair;  // from one to the next, in pairs

  CONVLAB_INLINE PlanesPanel(const AmxProduct& a, int images, int64_t source_rows)
      : rows(int((source_rows + a.rows_apart - 1) / a.rows_apart)),
        columns((a.panel_columns + a.columns_apart - 1) / a.columns_apart),
        row(columns),
        image(rows * row),
        column_phase(images * image),
        row_phase(a.column_phases_read * column_phase),
        pair(round_up(a.row_phases_read * row_phase, kColumns)) {
    if (pair / kColumns % 2 == 0) pair += kColumns;  // lest rows of a tile meet in the same sets of the L1
  }
};

// Positions of a segment that a tile has: their first, and where the source of their first lies
struct PixelTile {
  int64_t source;  // bytes
  int n, row, column;  // of the strip's images and of the segment
  bool joins;  // the next tile's positions follow
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
    memory.take(sums, 2 * kRows * kPanel + kPanel);  // what a row that begins later reads behind the last
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

// A vector's weights, in pairs, and behind them a row of pairs of all its lanes' taps, with room to read on
CONVLAB_INLINE int64_t packing_scratch(const Filters& f) {
  const int64_t taps = int64_t(f.R) * f.S;
  return (round_up(f.depth, 2) / 2 * taps + taps + 1) * kColumns * 4;
}

}  // namespace amx

// The vectors [begin, end) of all groups' panels, two a panel -> packed; scratch: of packing_scratch bytes
CONVLAB_KERNEL(amx_pack,
               void(const amx::AmxProduct&, const void* w, void* packed, int64_t begin, int64_t end, void* scratch));
// bias: floats [groups, panels, kPanel]
CONVLAB_KERNEL(amx, void(const amx::AmxProduct&, const void* source, const void* weights, const void* bias,
                         void* target, int64_t begin, int64_t end, char* scratch));
CONVLAB_KERNEL(amx_planes, void(const amx::AmxProduct&, const void* source, const void* weights, const void* bias,
                                void* target, int64_t begin, int64_t end, char* scratch));

// dy, x -> sums [slices, groups, vectors, R S, depth, kColumns]; the pieces are [slices, groups, shares, parts]
CONVLAB_KERNEL(amx_wgrad, void(const amx::AmxWgrad&, const void* dy, const void* x, float* sums, int64_t begin,
                               int64_t end, char* scratch));

}  // namespace convlab
