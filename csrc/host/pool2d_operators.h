// What the pooling operators have in common.
#pragma once
#include "host/arguments.h"

namespace convlab {

// The pooling that made an output of `outputs` [N, C, P, Q] from planes of input_size (H, W). Floor and ceil_mode can
// differ by one output along a dimension; each dimension takes the one that fits.
inline Pool2d pool2d_from_outputs(const char* op, const Sizes& outputs, const Sizes& input_size, const Sizes& window) {
  CONVLAB_CHECK(outputs.size() == 4, op, ": grad_output must be [N, C, P, Q], got ", text(outputs));
  check_list(op, "input_size", input_size, 2, 1);
  const Sizes x{outputs[0], outputs[1], input_size[0], input_size[1]};
  Pool2d g = make_pool2d(op, x, window, true);
  const int64_t floor_p = pool_outputs(g.H, g.pad_h, g.R, g.stride_h, g.dilation_h, false);
  const int64_t floor_q = pool_outputs(g.W, g.pad_w, g.S, g.stride_w, g.dilation_w, false);
  CONVLAB_CHECK((outputs[2] == g.P || outputs[2] == floor_p) && (outputs[3] == g.Q || outputs[3] == floor_q), op,
                ": grad_output is ", text(outputs), ", expected ", text({x[0], x[1], floor_p, floor_q}),
                " or, with ceil_mode, ", text({x[0], x[1], g.P, g.Q}));
  g.P = int(outputs[2]), g.Q = int(outputs[3]);
  return g;
}

// `t` as the kernels take it beside tensors that lie channels_last, or do not
template <class Impl> Tensor packed_as(const Tensor& t, bool channels_last) {
  if (!Impl::takes_channels_last || is_channels_last(t) == channels_last) return packed<Impl>(t);
  return in_layout<Impl>(t, channels_last);
}

}  // namespace convlab
