// What a pooling asks of the CPU's kernels. Torch-free, and for kernels as well.
//
// All passes but gradients of windows side by side are one walk: each position of a target (y, or dx) is made of those
// positions of a source (x, or dy) that the window's taps join it with. Vectors lie along channels, so that windows,
// strides and edges are the same to all lanes.
//
//   in place    channels_last tensors of at least a vector of channels are read and written where they lie; and so are
//               rows of NCHW where windows are one column wide, which makes channels of columns, or two or four side by side
//   in panels   of others, a vector of planes is transposed into scratch memory, some rows at a time, and back
//
// Max pooling's gradient adds up what each window gives (Scattering), where asking each window costs more; where windows
// do not overlap, or are a row high, it is made row by row (Apart, RowBench).
#pragma once
#include "cpu/stub.h"
#include "cpu/workspace.h"
#include "geometry/axis.h"

namespace convlab {
namespace pooling {

// What a position of the target reads, in one dimension: `count` positions of the source from `first` on, with taps
// from `tap` on. As many positions of the target from this one on, itself among them, read the like of it.
struct Reads {
  int first, count, tap, alike;
};

struct PoolAxis {
  const Reads* reads;  // [targets]
  int targets, sources;
  int step, tap_step;  // between what a position reads
  int period, advance;  // from a target to the next that reads alike, and between the sources of both
};

struct Pooling {
  PoolAxis rows, columns;
  // N C planes, side_by_side N of all channels; C where channels lie side by side, else 1
  int64_t planes, channels;
  int64_t source_pixel, target_pixel;  // elements from a position to the next, in place
  bool in_place, byte_offsets;
  int wide = 1;  // columns of x and dx that are a channel: 1, 2, or 4
  bool whole;  // one window, which is the plane, and needs no panel
  bool narrow;  // windows of 2 x 2 side by side, none cut off, whose rows of outputs do not fill a vector
  bool wide_windows;  // windows that differ, of planes, so wide that their lanes are added up: an average's
  bool columns_first;  // windows that differ, of planes: an average's gradient is summed over columns, then over rows
  bool side_by_side;  // windows have neither gaps nor overlaps, and lie inside: an average's gradient
  int channels_each, planes_each, rows_each;  // of a piece: channels, in place, or planes; and rows of the target
  int sources_each;  // rows of the source that a panel holds, or shares of windows side by side
};

// An average pooling divides window (p, q) by rows[p] columns[q].
struct Averages {
  const double *rows, *columns;
  bool powers_of_two;  // all of them: then multiplying by the inverse gives the same bits in less time
  bool alike;  // all windows are divided by the same
};

// Max pooling's gradient by windows: what each gives is added up in planes that have room for whole windows.
struct Scattering {
  Axis rows, columns;
  int64_t channels;
  bool in_place, byte_offsets;  // in_place: dx itself has the sums
  int channels_each, rows_each;  // of a piece: channels of an image, and rows of dx
  int width, height;  // of a plane of sums
};

template <class A> struct PoolBench {
  A *source, *target, *sums;
  int32_t* offsets;
};

template <class A, class Memory> CONVLAB_INLINE PoolBench<A> pool_memory(Memory& memory, const Pooling& g, int lanes) {
  const int64_t n = g.in_place ? g.channels_each + g.channels % g.channels_each : lanes,
                targets = g.in_place || g.side_by_side ? 0 : n * g.rows_each * g.columns.targets;
  PoolBench<A> b;
  memory.take(b.source, n * g.sources_each * g.columns.sources);
  memory.take(b.target, targets);
  memory.take(b.sums, g.columns_first ? n * (int64_t(g.sources_each) + 1) * g.columns.targets : 0);
  memory.take(b.offsets, targets);
  return b;
}

template <class A> struct ScatterBench {
  int32_t* places;
  A* sums;
};

template <class A, class Memory> CONVLAB_INLINE ScatterBench<A> scatter_memory(Memory& memory, const Scattering& g) {
  const int64_t taps = int64_t(g.rows.kernel) * g.columns.kernel;
  ScatterBench<A> b;
  memory.take(b.places, taps > 256 ? taps : 256);
  memory.take(b.sums, g.in_place ? 0 : int64_t(g.width) * g.height * g.channels_each + kCacheLine);
  return b;
}

// Of max pooling's gradient along rows: dy and offsets between zeros, and a row of dx with its padding
template <class A> struct RowBench {
  int before, steps;  // windows before a column's own that may reach it; windows that begin in a padded row, and more
  A *dy, *dx;
  uint8_t* offsets;

  template <class Memory> CONVLAB_INLINE RowBench(Memory& memory, const Axis& a, int lanes) {
    before = (a.kernel - 1) / a.stride;
    steps = ((a.pad + a.size + a.stride - 1) / a.stride + lanes - 1) / lanes * lanes;
    memory.take(dy, before + steps), memory.take(dx, int64_t(steps) * a.stride + lanes);
    memory.take(offsets, before + steps + lanes);
  }
};

// Max pooling's gradient of windows that do not overlap
struct Apart {
  Axis rows, columns;
  int64_t images;
  int channels;
};

struct ApartBench {
  int together;  // rows of dx that are laid out: all of a window's, where that makes fewer vectors
  int vectors;  // of these
  int32_t *at, *first, *from, *taps;

  template <class Memory> CONVLAB_INLINE ApartBench(Memory& memory, const Apart& g, int lanes) {
    const int64_t row = int64_t(g.columns.size) * g.channels, stride = g.rows.stride,
                  of_all = (stride * row + lanes - 1) / lanes, of_row = (row + lanes - 1) / lanes;
    const bool all = g.columns.outputs * g.channels <= lanes && g.rows.pad == 0 && of_all < stride * of_row;
    together = all ? int(stride) : 1, vectors = int(all ? of_all : of_row);
    memory.take(at, vectors), memory.take(first, vectors);
    memory.take(from, int64_t(vectors) * lanes), memory.take(taps, int64_t(vectors) * lanes);
  }
};

}  // namespace pooling

using pooling::Averages, pooling::Pooling, pooling::Scattering;

// Pieces [begin, end). Forward's offsets may be null.
CONVLAB_KERNEL(max_forward,
               void(const Pooling&, const void* x, void* y, void* offsets, int64_t begin, int64_t end, char* scratch));
CONVLAB_KERNEL(max_gather, void(const Pooling&, const void* dy, const void* offsets, void* dx, int64_t begin,
                                int64_t end, char* scratch));
CONVLAB_KERNEL(max_scatter, void(const Scattering&, const void* dy, const void* offsets, void* dx, int64_t begin,
                                 int64_t end, char* scratch));
CONVLAB_KERNEL(max_apart, void(const pooling::Apart&, const void* dy, const uint8_t* offsets, void* dx, int64_t begin,
                               int64_t end, char* scratch));
CONVLAB_KERNEL(max_rows, void(const Axis& columns, const void* dy, const uint8_t* offsets, void* dx, int64_t begin,
                              int64_t end, char* scratch));
CONVLAB_KERNEL(average_forward, void(const Pooling&, const Averages&, const void* x, void* y, int64_t begin,
                                     int64_t end, char* scratch));
CONVLAB_KERNEL(average_backward, void(const Pooling&, const Averages&, const void* dy, void* dx, int64_t begin,
                                      int64_t end, char* scratch));

}  // namespace convlab
