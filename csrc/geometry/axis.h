// One dimension of a convolution. Torch-free, and plain data.
#pragma once
#include "geometry/conv2d.h"

namespace convlab {

// x has `size` positions, y `outputs`.
struct Axis {
  int size, outputs, kernel, stride, pad, dilation;
};

inline Axis rows_of(const Conv2d& g) { return {g.H, g.P, g.R, g.stride_h, g.pad_h, g.dilation_h}; }
inline Axis columns_of(const Conv2d& g) { return {g.W, g.Q, g.S, g.stride_w, g.pad_w, g.dilation_w}; }

// A position of an output, read around a position of its source
struct Place {
  int at, base;
};

}  // namespace convlab
