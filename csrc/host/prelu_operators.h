// The operators of PReLU up to the backend; see conv2d_operators.h. An Impl has
//
//   void scale(const ByChannel&, DType, bool keep, const void* t, const void* x, const void* w, void* out)
//   void wgrad(const ByChannel&, DType, const void* dy, const void* t, const void* x, void* dw)
//
// y = scale(x, x, w, true), dx = scale(dy, x, w, true), dw = wgrad(dy, x, x), and so are all derivatives of these. They
// take every dense layout as it is: in memory, the channel of an element follows from the stride of the channels.
#pragma once
#include "geometry/by_channel.h"
#include "host/leaky_relu_operators.h"

namespace convlab {

// How the elements of t, which is dense and not empty, belong to the positions of a dimension
inline ByChannel by_dimension(const Tensor& t, int dimension) {
  const int64_t channels = t.size(dimension), inner = std::max<int64_t>(1, t.strides()[dimension]);
  return channels == 1 ? ByChannel{1, 1, t.numel()} : ByChannel{t.numel() / channels / inner, channels, inner};
}

// How the elements of x, which is dense, belong to the channels of a weight: one for all, or x's second dimension
inline ByChannel by_channel(const char* op, const Tensor& x, int64_t channels) {
  if (channels == 1) return {1, 1, x.numel()};
  CONVLAB_CHECK(x.dim() >= 2 && x.size(1) == channels, op, ": weight has ", channels, " values, but input ",
                text(sizes_of(x)), " has ", x.dim() >= 2 ? x.size(1) : 1, " channels");
  if (x.numel() == 0) return {0, channels, 1};  // also of no channels
  return by_dimension(x, 1);
}

// t, x of one shape, w [1] or [C] -> t w where not x > 0, and elsewhere t if `keep`, else 0
template <class Impl> Tensor prelu_scale(Tensor t, Tensor x, Tensor w, bool keep) {
  const char* op = "prelu";
  const DType dtype = common_dtype(op, {{"input", x}, {"grad_output", t}, {"weight", w}});
  check_sizes(op, {"grad_output", t}, sizes_of(x));
  const Tensor xd = dense(x), td = in_order_of(xd, t), wc = torch::stable::contiguous(w);
  const ByChannel g = by_channel(op, xd, w.numel());
  Tensor out_tensor = output_like(xd);
  if (x.numel() > 0)
    Impl(x).scale(g, dtype, keep, in("grad_output", td), in("input", xd), in("weight", wc), out("output", out_tensor));
  return out_tensor;
}

// dy, t, x of one shape -> dw [channels]: the sum of dy t where not x > 0
template <class Impl> Tensor prelu_wgrad(Tensor dy, Tensor t, Tensor x, int64_t channels) {
  const char* op = "prelu_wgrad";
  const DType dtype = common_dtype(op, {{"input", x}, {"grad_output", dy}, {"t", t}});
  check_sizes(op, {"grad_output", dy}, sizes_of(x));
  check_sizes(op, {"t", t}, sizes_of(x));
  const Tensor xd = dense(x), td = in_order_of(xd, t), dyd = in_order_of(xd, dy);
  Tensor dw = empty({channels}, x.scalar_type(), x);
  if (x.numel() == 0) torch::stable::fill_(dw, 0.0);
  else
    Impl(x).wgrad(by_channel(op, xd, channels), dtype, in("grad_output", dyd), in("t", td), in("input", xd),
                  out("grad_weight", dw));
  return dw;
}

}  // namespace convlab
