// What a pooling asks of the CPU's kernels. Torch-free, and for kernels as well.
//
// A tensor is planes [H, W, inner]: N C planes with inner = 1, or, channels_last, N planes with inner = C. A pooling is
// made in one of three ways:
//
//   in lines      what is read is laid out in lines that stay in the L1, so that the taps of neighbouring outputs are
//                 neighbours whatever the stride, and what lies outside the tensor is there as well. Along one
//                 dimension, line t of phase f holds position t stride + f - pad; with r dilation = shift stride +
//                 phase, tap r of output p is line p + shift of that phase.
//   in channels   vectors lie along `inner` and read the tensors as they are
//   plain         element by element, without kernels of an instruction set (plain.h)
#pragma once
#include <type_traits>

#include "cpu/stub.h"
#include "cpu/workspace.h"
#include "geometry/axis.h"

namespace convlab {
namespace pooling {

struct PoolAxis : Axis {
  const int* phases;  // those that some tap reads, ascending
  const int* phase_of_tap;  // as an index of `phases`
  int phase_count;
  int reach;  // the largest shift
};

// The outputs, or in backward the lines of x, or the rows of either, are made in pieces of `each`.
struct PoolPart {
  int begin, end, each;
};

struct Pooling {
  int64_t planes, inner, planes_each;
  PoolAxis rows, columns;
  PoolPart row_part, column_part;
  bool side_by_side;  // windows cover x from its first column on without overlaps or gaps
  int64_t line, plane, phase;  // elements from one line, plane and phase to the next
};

// An average pooling divides window (p, q) by rows[p] columns[q].
struct Averages {
  const double *rows, *columns;
  bool equal_columns;
};

struct Tap {
  int64_t offset;  // from the output's position in what is read, in elements
  int64_t id;  // r S + s
};

struct Taps {
  const Tap* taps;
  int64_t count;
};

// The lines of a phase whose positions lie inside; line i holds position first + i stride
struct Span {
  int begin, end, first;
};

// ---- the memory that a thread works in ----

template <class A> using IntegerOf = std::conditional_t<sizeof(A) == 8, int64_t, int32_t>;

template <class A> struct OutputBench {
  Tap *in_lines, *in_memory;  // the window's taps in the lines; of its first column in the tensor
  Span* spans;
  A* lines;
};

template <class A, class Memory> CONVLAB_INLINE OutputBench<A> outputs_memory(Memory& memory, const Pooling& g) {
  return {.in_lines = memory.template take<Tap>(int64_t(g.rows.kernel) * g.columns.kernel),
          .in_memory = memory.template take<Tap>(g.rows.kernel),
          .spans = memory.template take<Span>(g.columns.phase_count),
          .lines = memory.template take<A>(int64_t(g.rows.phase_count) * g.columns.phase_count * g.phase)};
}

template <class A> struct GradientBench {
  Tap *of_columns, *of_rows;  // taps by phase
  Taps *across, *down;  // the same: [stride]
  Tap *whole_taps, *some_taps, *row_taps;
  Taps *whole, *some;  // [row stride, column stride], [column stride]
  A* buffers;
};

template <class A, class Memory>
CONVLAB_INLINE GradientBench<A> gradients_memory(Memory& memory, const Pooling& g, int lanes) {
  const PoolAxis &rows = g.rows, &columns = g.columns;
  const int64_t all_taps = int64_t(rows.kernel) * columns.kernel;
  return {.of_columns = memory.template take<Tap>(columns.kernel),
          .of_rows = memory.template take<Tap>(rows.kernel),
          .across = memory.template take<Taps>(columns.stride),
          .down = memory.template take<Taps>(rows.stride),
          .whole_taps = memory.template take<Tap>(all_taps),
          .some_taps = memory.template take<Tap>(all_taps),
          .row_taps = memory.template take<Tap>(rows.kernel),
          .whole = memory.template take<Taps>(int64_t(rows.stride) * columns.stride),
          .some = memory.template take<Taps>(columns.stride),
          .buffers = memory.template take<A>(columns.stride * g.line + lanes)};
}

// Of the windows' first taps inside x, by element of a row
template <class A, class Memory>
CONVLAB_INLINE IntegerOf<A>* first_taps_memory(Memory& memory, const Pooling& g, int lanes) {
  return memory.template take<IntegerOf<A>>(g.columns.pad > 0 ? g.columns.outputs * g.inner + lanes : 0);
}

// dy and offsets in lines, and what gradients take
template <class A, class M> struct MaxBackwardBench {
  A* dy;
  M* offsets;
  GradientBench<A> gradients;
};

template <class A, class M, class Memory>
CONVLAB_INLINE MaxBackwardBench<A, M> max_backward_memory(Memory& memory, const Pooling& g, int lanes) {
  return {memory.template take<A>(g.phase), memory.template take<M>(g.phase), gradients_memory<A>(memory, g, lanes)};
}

template <class A> struct AverageBench {
  A *divisors, *dy;
  OutputBench<A> outputs;  // of forward
  GradientBench<A> gradients;  // of backward
};

template <class A, class Memory>
CONVLAB_INLINE AverageBench<A> average_memory(Memory& memory, bool backward, const Pooling& g, const Averages& a,
                                              int lanes) {
  AverageBench<A> bench{};
  bench.divisors = memory.template take<A>(a.equal_columns ? 0 : g.columns.outputs * g.inner + 2 * lanes);
  bench.dy = memory.template take<A>(backward ? g.phase : 0);
  if (backward) bench.gradients = gradients_memory<A>(memory, g, lanes);
  else bench.outputs = outputs_memory<A>(memory, g);
  return bench;
}

struct ChannelBench {
  Tap *window, *of_rows, *of_columns;
  Taps* by_column;
};

template <class Memory> CONVLAB_INLINE ChannelBench channels_memory(Memory& memory, const Pooling& g, bool backward) {
  return {.window = memory.template take<Tap>(backward ? 0 : int64_t(g.rows.kernel) * g.columns.kernel),
          .of_rows = memory.template take<Tap>(backward ? g.rows.kernel : 0),
          .of_columns = memory.template take<Tap>(backward ? int64_t(g.columns.size) * g.columns.kernel : 0),
          .by_column = memory.template take<Taps>(backward ? g.columns.size : 0)};
}

}  // namespace pooling

using pooling::Averages, pooling::Pooling;

// Of max pooling, for offsets of a byte, or of an int; forward's may be null
using MaxForward = void(const Pooling&, const void* x, void* y, void* offsets, int64_t begin, int64_t end,
                        char* scratch);
using MaxBackward = void(const Pooling&, const void* dy, const void* offsets, void* dx, int64_t begin, int64_t end,
                         char* scratch);
CONVLAB_KERNEL(max_lines_forward, MaxForward);
CONVLAB_KERNEL(max_lines_forward_int, MaxForward);
CONVLAB_KERNEL(max_lines_backward, MaxBackward);
CONVLAB_KERNEL(max_lines_backward_int, MaxBackward);
CONVLAB_KERNEL(max_channels_forward, MaxForward);
CONVLAB_KERNEL(max_channels_forward_int, MaxForward);
CONVLAB_KERNEL(max_channels_backward, MaxBackward);
CONVLAB_KERNEL(max_channels_backward_int, MaxBackward);

using AverageFunction = void(const Pooling&, const Averages&, const void* from, void* to, int64_t begin, int64_t end,
                             char* scratch);
CONVLAB_KERNEL(average_forward, AverageFunction);
CONVLAB_KERNEL(average_backward, AverageFunction);

}  // namespace convlab
