// Which outputs see an element of x: what a gradient to x gathers, of a convolution or a pooling.
#pragma once
#include "../device/device.h"

namespace convlab {

// Calls f(r * S + s, p * Q + q) for each tap (r, s) of the window of an output (p, q) that lies on x's row h and column v: where
// p stride_h - pad_h + r dilation_h = h, likewise q. g: a Conv2d or a Pool2d.
template <class Geometry, class F> __device__ __forceinline__ void over_windows(const Geometry& g, int h, int v, const F& f) {
  for (int r = 0; r < g.R; r++) {
    const int ph = h + g.pad_h - r * g.dilation_h;  // p * stride_h
    if (ph < 0 || ph % g.stride_h || ph / g.stride_h >= g.P) continue;
    for (int s = 0; s < g.S; s++) {
      const int qv = v + g.pad_w - s * g.dilation_w;
      if (qv < 0 || qv % g.stride_w || qv / g.stride_w >= g.Q) continue;
      f(r * g.S + s, ph / g.stride_h * g.Q + qv / g.stride_w);
    }
  }
}

}  // namespace convlab
