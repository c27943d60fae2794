// The average pooling operators up to the backend; see conv2d_operators.h. An Impl has
//
//   void forward(const AvgPool2d&, DType, const void* x, void* y)
//   void backward(const AvgPool2d&, DType, const void* dy, void* dx)
//
// and static constexpr bool takes_channels_last (tensors.h), and is made from the tensor that the call writes. y is
// channels_last where x is.
#pragma once
#include "geometry/avg_pool2d.h"
#include "host/pool2d_operators.h"

namespace convlab {

inline AvgPool2d make_avg_pool2d(const char* op, const Pool2d& g, bool count_include_pad, int64_t divisor) {
  CONVLAB_CHECK(g.dilation_h == 1 && g.dilation_w == 1, op, ": dilation=", text({g.dilation_h, g.dilation_w}),
                " must be 1: an average has none");
  return {g, count_include_pad, divisor};
}

// x [N, C, H, W] -> y [N, C, P, Q]
template <class Impl>
Tensor avg_pool2d_forward(Tensor x, Sizes window, bool ceil_mode, bool count_include_pad, int64_t divisor) {
  const char* op = "avg_pool2d";
  const DType dtype = dtype_of(op, {"input", x});
  const Pool2d g = make_pool2d(op, sizes_of(x), window, ceil_mode);
  const AvgPool2d a = make_avg_pool2d(op, g, count_include_pad, divisor);

  const bool channels_last = is_channels_last(x);
  Tensor y = output<Impl>({x.size(0), x.size(1), g.P, g.Q}, x.scalar_type(), x, channels_last);
  if (y.numel() > 0) {
    const Tensor xp = packed<Impl>(x);
    Impl(y).forward(a, dtype, in("input", xp), out("output", y));
  }
  return to_requested_layout<Impl>(y, channels_last);
}

// dy [N, C, P, Q] -> dx [N, C, H, W], where input_size is (H, W)
template <class Impl>
Tensor avg_pool2d_backward(Tensor dy, Sizes input_size, Sizes window, bool count_include_pad, int64_t divisor,
                           bool channels_last) {
  const char* op = "avg_pool2d_backward";
  const DType dtype = dtype_of(op, {"grad_output", dy});
  const Pool2d g = pool2d_from_outputs(op, sizes_of(dy), input_size, window);
  const AvgPool2d a = make_avg_pool2d(op, g, count_include_pad, divisor);

  Tensor dx = output<Impl>({dy.size(0), dy.size(1), g.H, g.W}, dy.scalar_type(), dy, channels_last);
  if (dx.numel() > 0) {
    const Tensor dyp = packed_as<Impl>(dy, channels_last);
    Impl(dx).backward(a, dtype, in("grad_output", dyp), out("grad_input", dx));
  }
  return to_requested_layout<Impl>(dx, channels_last);
}

}  // namespace convlab
