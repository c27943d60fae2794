// What a 2-D pooling is: a window of R x S taps, `dilation` apart, over each [H, W] plane. Tap (r, s) of output (p, q)
// is
//
//   x[plane, p stride_h - pad_h + r dilation_h, q stride_w - pad_w + s dilation_w]
//
// Padding is never a value: taps outside x do not take part. Torch-free, for host and device.
#pragma once
#include "geometry/conv2d.h"

namespace convlab {

struct Pool2d {
  long long planes;  // N * C
  int H, W;  // x [planes, H, W]
  int P, Q;  // y [planes, P, Q]
  int R, S;  // the window
  int stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
};

// A max pooling remembers which tap won: r * S + s. One byte holds it for every window of up to 256 taps.
inline bool offsets_fit_a_byte(const Pool2d& g) { return (long long)g.R * g.S <= 256; }

// Outputs along one dimension, as torch counts them: with ceil_mode a last window may hang over the end, but must start
// inside x or its left padding.
inline long long pool_outputs(long long size, long long pad, long long kernel, long long stride, long long dilation,
                              bool ceil_mode) {
  const long long room = size + 2 * pad - dilation * (kernel - 1) - 1 + (ceil_mode ? stride - 1 : 0);
  const long long outputs =
      (room >= 0 ? room / stride : -((-room + stride - 1) / stride)) + 1;  // rounds towards minus infinity
  return ceil_mode && (outputs - 1) * stride >= size + pad ? outputs - 1 : outputs;
}

}  // namespace convlab
