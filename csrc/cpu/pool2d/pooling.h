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
  bool byte_offsets;  // max pooling's: of a byte, or of an int
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
  OutputBench<A> b;
  memory.take(b.in_lines, int64_t(g.rows.kernel) * g.columns.kernel);
  memory.take(b.in_memory, g.rows.kernel);
  memory.take(b.spans, g.columns.phase_count);
  memory.take(b.lines, int64_t(g.rows.phase_count) * g.columns.phase_count * g.phase);
  return b;
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
  GradientBench<A> b;
  memory.take(b.of_columns, columns.kernel);
  memory.take(b.of_rows, rows.kernel);
  memory.take(b.across, columns.stride);
  memory.take(b.down, rows.stride);
  memory.take(b.whole_taps, all_taps);
  memory.take(b.some_taps, all_taps);
  memory.take(b.row_taps, rows.kernel);
  memory.take(b.whole, int64_t(rows.stride) * columns.stride);
  memory.take(b.some, columns.stride);
  memory.take(b.buffers, columns.stride * g.line + lanes);
  return b;
}

template <class A> struct MaxForwardBench {
  IntegerOf<A>* first;  // the windows' first taps inside x, by element of a row
  OutputBench<A> outputs;
};

template <class A, class Memory>
CONVLAB_INLINE MaxForwardBench<A> max_forward_memory(Memory& memory, const Pooling& g, int lanes) {
  MaxForwardBench<A> b;
  memory.take(b.first, g.columns.pad > 0 ? g.columns.outputs * g.inner + lanes : 0);
  b.outputs = outputs_memory<A>(memory, g);
  return b;
}

template <class A> struct MaxBackwardBench {  // lines of dy and of offsets
  A* dy;
  uint8_t* byte_offsets;
  int32_t* int_offsets;
  GradientBench<A> gradients;
};

template <class A, class Memory>
CONVLAB_INLINE MaxBackwardBench<A> max_backward_memory(Memory& memory, const Pooling& g, int lanes) {
  MaxBackwardBench<A> b;
  memory.take(b.dy, g.phase);
  memory.take(b.byte_offsets, g.byte_offsets ? g.phase : 0);
  memory.take(b.int_offsets, g.byte_offsets ? 0 : g.phase);
  b.gradients = gradients_memory<A>(memory, g, lanes);
  return b;
}

template <class A> struct AverageBench {
  A *divisors, *dy;
  OutputBench<A> outputs;  // of forward
  GradientBench<A> gradients;  // of backward
};

template <class A, class Memory>
CONVLAB_INLINE AverageBench<A> average_memory(Memory& memory, bool backward, const Pooling& g, const Averages& a,
                                              int lanes) {
  AverageBench<A> b{};
  memory.take(b.divisors, a.equal_columns ? 0 : g.columns.outputs * g.inner + 2 * lanes);
  memory.take(b.dy, backward ? g.phase : 0);
  if (backward) b.gradients = gradients_memory<A>(memory, g, lanes);
  else b.outputs = outputs_memory<A>(memory, g);
  return b;
}

struct ChannelBench {
  Tap *window, *of_rows, *of_columns;
  Taps* by_column;
};

template <class Memory> CONVLAB_INLINE ChannelBench channels_memory(Memory& memory, const Pooling& g, bool backward) {
  ChannelBench b;
  memory.take(b.window, backward ? 0 : int64_t(g.rows.kernel) * g.columns.kernel);
  memory.take(b.of_rows, backward ? g.rows.kernel : 0);
  memory.take(b.of_columns, backward ? int64_t(g.columns.size) * g.columns.kernel : 0);
  memory.take(b.by_column, backward ? g.columns.size : 0);
  return b;
}

}  // namespace pooling

using pooling::Averages, pooling::Pooling;

// Of max pooling; forward's offsets may be null. Along channels for elements of the type of the sums alone
using MaxForward = void(const Pooling&, const void* x, void* y, void* offsets, int64_t begin, int64_t end,
                        char* scratch);
using MaxBackward = void(const Pooling&, const void* dy, const void* offsets, void* dx, int64_t begin, int64_t end,
                         char* scratch);
CONVLAB_KERNEL(max_lines_forward, MaxForward);
CONVLAB_KERNEL(max_lines_backward, MaxBackward);
CONVLAB_KERNEL(max_channels_forward, MaxForward);
CONVLAB_KERNEL(max_channels_backward, MaxBackward);

using AverageFunction = void(const Pooling&, const Averages&, const void* from, void* to, int64_t begin, int64_t end,
                             char* scratch);
CONVLAB_KERNEL(average_forward, AverageFunction);
CONVLAB_KERNEL(average_backward, AverageFunction);

}  // namespace convlab
