// The activation operators up to the backend; see conv2d.h. A Backend has
//
//   void leaky_relu_forward(DType, long long elements, double negative_slope, const void* x, void* y), and so on, as in launchers.h
//
// They work on tensors of any shape, element by element in memory order, so every dense layout goes through as it is.
#pragma once
#include <numeric>

#include "arguments.h"

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

inline Tensor copy_like(const Tensor& layout, const Tensor& values) {
  Tensor out = torch::stable::empty_like(layout);
  torch::stable::copy_(out, values);
  return out;
}

// x with gaps closed; torch.empty_like(x) has its strides.
inline Tensor dense(const Tensor& x) { return is_dense(x) ? x : copy_like(x, x); }

// The elements of t in x's memory order, where x is dense.
inline Tensor in_order_of(const Tensor& x, const Tensor& t) {
  const auto a = x.strides(), b = t.strides();
  return std::equal(a.begin(), a.end(), b.begin(), b.end()) ? t : copy_like(x, t);
}

// y = run(x), element by element
template <class Backend, class Run> Tensor elementwise(const char* op, const Tensor& x, Run run) {
  const DType dtype = dtype_of(op, {"input", x});
  const Tensor xd = dense(x);
  Tensor y = torch::stable::empty_like(xd);
  if (x.numel() > 0) run(Backend(x), dtype, in("input", xd), out("output", y));
  return y;
}

// dx = run(dy, other), element by element, in the layout of `other`
template <class Backend, class Run> Tensor elementwise(const char* op, const Tensor& dy, const Tensor& other, Run run) {
  const DType dtype = common_dtype(op, {{"grad_output", dy}, {"input", other}});
  check_sizes(op, {"grad_output", dy}, sizes_of(other));
  const Tensor xd = dense(other), dyd = in_order_of(xd, dy);
  Tensor dx = torch::stable::empty_like(xd);
  if (other.numel() > 0) run(Backend(other), dtype, in("grad_output", dyd), in("input", xd), out("grad_input", dx));
  return dx;
}

template <class Backend> Tensor leaky_relu_forward(Tensor x, double negative_slope) {
  return elementwise<Backend>("leaky_relu", x, [&](Backend backend, DType dtype, const void* in, void* out) {
    backend.leaky_relu_forward(dtype, x.numel(), negative_slope, in, out);
  });
}

template <class Backend> Tensor leaky_relu_backward(Tensor dy, Tensor x, double negative_slope) {
  return elementwise<Backend>("leaky_relu_backward", dy, x, [&](Backend backend, DType dtype, const void* grad, const void* in, void* out) {
    backend.leaky_relu_backward(dtype, x.numel(), negative_slope, grad, in, out);
  });
}

template <class Backend> Tensor relu_forward(Tensor x) {
  return elementwise<Backend>("relu", x, [&](Backend backend, DType dtype, const void* in, void* out) { backend.relu_forward(dtype, x.numel(), in, out); });
}

template <class Backend> Tensor relu_backward(Tensor dy, Tensor y) {
  return elementwise<Backend>("relu_backward", dy, y, [&](Backend backend, DType dtype, const void* grad, const void* in, void* out) {
    backend.relu_backward(dtype, y.numel(), grad, in, out);
  });
}

}  // namespace convlab
