// The activation operators up to the backend; see conv2d_operators.h. An Impl has
//
//   void relu_forward(DType, long long elements, const void* x, void* y), and so on, as in launchers.h
//
// They work on tensors of any shape, element by element in memory order, so every dense layout goes through as it is.
#pragma once
#include <numeric>

#include "host/arguments.h"

namespace convlab {

// Whether the elements fill their memory without gaps or overlaps, in whatever order.
inline bool is_dense(const Tensor& t) {
  if (t.is_contiguous()) return true;
  const auto size = t.sizes(), stride = t.strides();
  std::vector<int64_t> by_stride(size.size());
  std::iota(by_stride.begin(), by_stride.end(), 0);
  std::sort(by_stride.begin(), by_stride.end(), [&](int64_t a, int64_t b) { return stride[a] < stride[b]; });
  int64_t expected = 1;
  for (int64_t d : by_stride) {
    if (size[d] == 1) continue;
    if (stride[d] != expected) return false;
    expected *= size[d];
  }
  return true;
}

// Memory for elements of another type that lie as those of t, which is dense
inline Tensor empty_as(const Tensor& t, ScalarType dtype) { return empty_strided(t.sizes(), t.strides(), dtype, t); }

// Memory of x's shape, with the strides that torch's element-wise operators give their output: contiguous or
// channels_last where x can be taken for that, else what torch.empty_like(x) has.
inline Tensor output_like(const Tensor& x) {
  if (x.is_contiguous()) return empty(sizes_of(x), x.scalar_type(), x);
  if (is_dense(x) && is_channels_last(x)) return empty(sizes_of(x), x.scalar_type(), x, MemoryFormat::ChannelsLast);
  return torch::stable::empty_like(x);
}

// x with gaps closed; torch.empty_like(x) has its strides.
inline Tensor dense(const Tensor& x) {
  if (is_dense(x)) return x;
  Tensor out = torch::stable::empty_like(x);
  torch::stable::copy_(out, x);
  return out;
}

// x = xd, which is dense(x) with other values
inline void write_back(Tensor& x, const Tensor& xd) {
  if (xd.const_data_ptr() != x.const_data_ptr()) torch::stable::copy_(x, xd);
}

// The elements of t in x's memory order, where x is dense.
inline Tensor in_order_of(const Tensor& x, const Tensor& t) {
  bool ordered = true;
  for (int64_t d = 0; d < x.dim(); d++) ordered &= x.size(d) == 1 || x.strides()[d] == t.strides()[d];
  if (ordered) return t;
  Tensor out = empty_as(x, t.scalar_type());
  torch::stable::copy_(out, t);
  return out;
}

inline int64_t bytes_of_bits(int64_t elements) { return (elements + 7) / 8; }

// y = run(x), element by element; `like` makes y of x with its gaps closed
template <class Impl, class Run>
Tensor elementwise(const char* op, const Tensor& x, Run run, Tensor (*like)(const Tensor&) = output_like) {
  const DType dtype = dtype_of(op, {"input", x});
  const Tensor xd = dense(x);
  Tensor y = like(xd);
  if (x.numel() > 0) run(Impl(x), dtype, x.numel(), in("input", xd), out("output", y));
  return y;
}

// x = run(x), element by element
template <class Impl, class Run> void in_place(const char* op, Tensor& x, Run run) {
  const DType dtype = dtype_of(op, {"input", x});
  Tensor xd = dense(x);
  if (x.numel() > 0) run(Impl(x), dtype, x.numel(), in("input", xd), out("output", xd));
  write_back(x, xd);
}

// dx = run(dy, other), element by element, in the layout of `other`
template <class Impl, class Run> Tensor elementwise(const char* op, const Tensor& dy, const Tensor& other, Run run) {
  const DType dtype = common_dtype(op, {{"grad_output", dy}, {"input", other}});
  check_sizes(op, {"grad_output", dy}, sizes_of(other));
  const Tensor xd = dense(other), dyd = in_order_of(xd, dy);
  Tensor dx = output_like(xd);
  if (other.numel() > 0) run(Impl(other), dtype, in("grad_output", dyd), in("input", xd), out("grad_input", dx));
  return dx;
}

// Whether an element of x has a bit for its sign, and its gradient need not lie as a mask does
inline bool has_bits(const Tensor& x) { return x.is_contiguous() || is_dense_channels_last(x); }

// dense x -> y, which may be x, and where x > 0, or [0] unless with_positive: a bool an element that lies as x, or as_bits:
// bytes [ceil(elements / 8)] of the bits of eight elements side by side in memory, the first the lowest.
template <class Impl>
Tensor leaky_relu_of(DType dtype, const Tensor& x, Tensor& y, double negative_slope, bool with_positive, bool as_bits) {
  if (with_positive && as_bits) {
    Tensor bits = empty({bytes_of_bits(x.numel())}, ScalarType::Byte, x);
    if (x.numel() > 0)
      Impl(x).leaky_relu_forward_bits(dtype, x.numel(), negative_slope, in("input", x), out("output", y),
                                      out("positive", bits));
    return bits;
  }
  Tensor positive = with_positive ? empty_as(x, ScalarType::Bool) : empty({0}, ScalarType::Bool, x);
  if (x.numel() > 0)
    Impl(x).leaky_relu_forward(dtype, x.numel(), negative_slope, in("input", x), out("output", y),
                               out_or_null("positive", with_positive ? &positive : nullptr));
  return positive;
}

template <class Impl>
std::tuple<Tensor, Tensor> leaky_relu_forward(Tensor x, double negative_slope, bool with_positive, bool as_bits) {
  const DType dtype = dtype_of("leaky_relu", {"input", x});
  const Tensor xd = dense(x);
  Tensor y = output_like(xd);
  const Tensor positive = leaky_relu_of<Impl>(dtype, xd, y, negative_slope, with_positive, as_bits && has_bits(x));
  return {y, positive};
}

template <class Impl> Tensor leaky_relu_(Tensor x, double negative_slope, bool with_positive, bool as_bits) {
  const DType dtype = dtype_of("leaky_relu", {"input", x});
  Tensor xd = dense(x);
  const Tensor positive = leaky_relu_of<Impl>(dtype, xd, xd, negative_slope, with_positive, as_bits && has_bits(x));
  write_back(x, xd);
  return positive;
}

// dy, positive -> dx, in the layout of `positive`; where it is bits, channels_last or contiguous, as x was
template <class Impl>
Tensor leaky_relu_backward(Tensor dy, Tensor positive, double negative_slope, bool channels_last) {
  const char* op = "leaky_relu_backward";
  const DType dtype = dtype_of(op, {"grad_output", dy});
  check_same_device(op, {"grad_output", dy}, {"positive", positive});
  if (positive.scalar_type() == ScalarType::Byte) {
    check_sizes(op, {"positive", positive}, {bytes_of_bits(dy.numel())});
    CONVLAB_CHECK(!channels_last || dy.dim() == 4, op, ": channels_last, but grad_output has ", dy.dim(),
                  " dimensions, expected 4");
    const Tensor dyd = in_layout<Impl>(dy, channels_last), bits = torch::stable::contiguous(positive);
    Tensor dx = channels_last ? empty(sizes_of(dy), dy.scalar_type(), dy, MemoryFormat::ChannelsLast)
                              : empty(sizes_of(dy), dy.scalar_type(), dy);
    if (dy.numel() > 0)
      Impl(dy).leaky_relu_backward_bits(dtype, dy.numel(), negative_slope, in("grad_output", dyd), in("positive", bits),
                                        out("grad_input", dx));
    return dx;
  }
  CONVLAB_CHECK(positive.scalar_type() == ScalarType::Bool, op, ": positive is ", name_of(positive.scalar_type()),
                ", expected bool");
  check_sizes(op, {"grad_output", dy}, sizes_of(positive));
  const Tensor pd = dense(positive), dyd = in_order_of(pd, dy);
  Tensor dx = empty_as(pd, dy.scalar_type());
  if (dy.numel() > 0)
    Impl(dy).leaky_relu_backward(dtype, dy.numel(), negative_slope, in("grad_output", dyd), in("positive", pd),
                                 out("grad_input", dx));
  return dx;
}

constexpr auto kRelu = [](auto backend, DType dtype, long long elements, const void* x, void* y) {
  backend.relu_forward(dtype, elements, x, y);
};
constexpr auto kRelu6 = [](auto backend, DType dtype, long long elements, const void* x, void* y) {
  backend.relu6_forward(dtype, elements, x, y);
};

template <class Impl> Tensor relu_forward(Tensor x) { return elementwise<Impl>("relu", x, kRelu); }
template <class Impl> void relu_(Tensor x) { in_place<Impl>("relu", x, kRelu); }
template <class Impl> Tensor relu6_forward(Tensor x) {  // torch's, alone of these, keeps the strides where C is 1
  return elementwise<Impl>("relu6", x, kRelu6, [](const Tensor& t) { return torch::stable::empty_like(t); });
}
template <class Impl> void relu6_(Tensor x) { in_place<Impl>("relu6", x, kRelu6); }

template <class Impl> Tensor relu6_backward(Tensor dy, Tensor y) {
  return elementwise<Impl>("relu6_backward", dy, y,
                           [&](Impl backend, DType dtype, const void* grad, const void* in, void* out) {
                             backend.relu6_backward(dtype, y.numel(), grad, in, out);
                           });
}

template <class Impl> Tensor relu_backward(Tensor dy, Tensor y) {
  return elementwise<Impl>("relu_backward", dy, y,
                           [&](Impl backend, DType dtype, const void* grad, const void* in, void* out) {
                             backend.relu_backward(dtype, y.numel(), grad, in, out);
                           });
}

}  // namespace convlab
