// What a pooling asks of the CPU's kernels, as plain data. Torch-free.
//
// A tensor is planes [H, W, inner]: N C planes with inner = 1, or, channels_last, N planes with inner = C. The kernels
// lay what they read out in lines that stay in the first cache, so that the taps of neighbouring outputs are neighbours
// whatever the stride, and what lies outside the tensor is there as well. Along one dimension, line t of phase f holds
// place t stride + f - pad; with r dilation = shift stride + phase, tap r of output p is line p + shift of that phase.
#pragma once
#include "geometry/axis.h"

namespace convlab {

struct PoolAxis : Axis {
  const int* phases;  // those that some tap reads, ascending
  const int* phase_of_tap;  // as an index of `phases`
  int phase_count;
  int reach;  // the largest shift
};

// The outputs, or in backward the lines of x, are made in pieces of `each`.
struct PoolPart {
  int begin, end, each;
};

struct Pooling {
  int64_t planes, inner, planes_each;
  PoolAxis rows, columns;
  PoolPart row_part, column_part;
  bool side_by_side;  // windows cover x from its first column on without overlaps or gaps
  bool direct;  // vectors lie along `inner` and read the tensors as they are: no lines, and row_part is of rows
  int64_t line, plane, phase;  // elements from one line, plane and phase to the next
};

// An average pooling divides window (p, q) by rows[p] columns[q].
struct Averages {
  const double *rows, *columns;
  bool equal_columns;
};

}  // namespace convlab
