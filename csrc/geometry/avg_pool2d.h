// What an average pooling is beyond its windows (pool2d.h, without dilation): what a window's sum is divided by, and
// which windows cover a row of x. Torch-free, for host and device.
#pragma once
#include <algorithm>

#include "geometry/pool2d.h"
#include "geometry/ranges.h"

namespace convlab {

struct AvgPool2d {
  Pool2d window;
  bool count_include_pad;  // zeros that belong to a window are counted, as far as the padding goes
  long long divisor;  // instead of counting; 0 for none
};

// The outputs whose windows cover row h of x, in one dimension: p * stride <= h + pad < p * stride + taps.
CONVLAB_HD inline Range windows_over(int h, int stride, int pad, int taps, int outputs) {
  const int padded = h + pad, first = padded < taps ? 0 : (padded - taps) / stride + 1, end = padded / stride + 1;
  return {first, std::min(end, outputs)};
}

// What the sum over window (p, q) is divided by. A window that hangs over the padding (ceil_mode) ends where the
// padding ends.
CONVLAB_HD inline long long averaged_over(const AvgPool2d& a, int p, int q) {
  if (a.divisor) return a.divisor;
  const Pool2d& g = a.window;
  const int pad_h = a.count_include_pad ? g.pad_h : 0, pad_w = a.count_include_pad ? g.pad_w : 0;
  const int h = p * g.stride_h - g.pad_h, w = q * g.stride_w - g.pad_w;
  const int rows = std::min(h + g.R, g.H + pad_h) - std::max(h, -pad_h),
            columns = std::min(w + g.S, g.W + pad_w) - std::max(w, -pad_w);
  return (long long)rows * columns;  // padding is at most half a window, so every window has a row and a column of x
}

}  // namespace convlab
