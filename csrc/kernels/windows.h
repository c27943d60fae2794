// Which outputs see an element of x: what a gradient to x gathers, of a convolution or a pooling.
#pragma once
#include "device/device.h"

namespace convlab {

// In one dimension: calls f(tap, output), in ascending order of taps, for each output whose window has that tap on
// `place`, a position counted from where the padding begins: output stride + tap dilation = place.
template <class F>
__device__ __forceinline__ void over_taps(int place, int kernel, int stride, int dilation, int outputs, const F& f) {
  if (dilation == 1) {  // then it is every stride-th tap: one division for all
    for (int output = place / stride; output >= 0 && place - output * stride < kernel; output--)
      if (output < outputs) f(place - output * stride, output);
    return;
  }
  for (int tap = 0; tap < kernel; tap++) {
    const int over = place - tap * dilation;
    if (over >= 0 && over % stride == 0 && over / stride < outputs) f(tap, over / stride);
  }
}

// Calls f(r * S + s, p * Q + q) for each tap (r, s) of the window of an output (p, q) that lies on x's row h and column
// v: where p stride_h - pad_h + r dilation_h = h, likewise q. g: a Conv2d or a Pool2d.
template <class Geometry, class F>
__device__ __forceinline__ void over_windows(const Geometry& g, int h, int v, const F& f) {
  over_taps(h + g.pad_h, g.R, g.stride_h, g.dilation_h, g.P, [&](int r, int p) {
    over_taps(v + g.pad_w, g.S, g.stride_w, g.dilation_w, g.Q, [&](int s, int q) { f(r * g.S + s, p * g.Q + q); });
  });
}

}  // namespace convlab
