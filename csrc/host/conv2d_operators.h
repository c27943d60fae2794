// The convolution operators up to the backend: check, allocate, choose the algorithm, hand over plain pointers. One
// text for every backend. An Impl is made from a tensor, whose device and stream it takes, and has
//
//   using Rung = CpuRung or CudaRung;
//   static constexpr bool takes_channels_last;  // tensors.h: whether tensors may lie channels_last, of any rung
//   static int multiprocessors(const Tensor&);  // of the tensor's GPU
//   static int capability(const Tensor&);       // so too: ten times its compute capability
//   void forward(const Chosen<Rung>&, const Problem&, const void* x, const void* w, const void* bias_or_null, void* y)
//   void dgrad(const Chosen<Rung>&, const Problem&, const void* dy, const void* w, void* dx, const void* bias_or_null)
//   void wgrad(const Chosen<Rung>&, const Problem&, const void* dy, const void* x, void* dw, void* db_or_null)
//   void bias_grad(const Problem&, const void* dy, void* db)
//
// As in torch, y, dx and dw are channels_last if x or w is. dgrad and wgrad see only one of the two, so they are told. dw
// of a filter whose layouts are the same memory (1 x 1, or one channel a group) is told what w's strides say.
#pragma once
#include "algorithms.h"
#include "host/arguments.h"

namespace convlab {

// How an operator's tensors will lie once they are packed, and its output of `sizes` that is to be channels_last or not
inline Layouts layouts(const Tensor& first, const Tensor& second, const Sizes& sizes, bool channels_last) {
  return {lies_channels_last(first), lies_channels_last(second), channels_last && !one_layout(sizes)};
}

// Whether the chosen rung takes tensors that lie channels_last
template <class Impl> bool as_they_lie(const Chosen<typename Impl::Rung>& c) {
  return Impl::takes_channels_last || c.rung->as_they_lie;
}

// Whether w, whose layouts are the same memory (1 x 1, or one channel a group), has the strides of a contiguous tensor:
// then so has dw, whatever x is, or the strides would differ from the parameter's where a size is 1.
inline bool only_contiguous(const Tensor& w) {
  return w.is_contiguous() && is_dense_channels_last(w) && !is_channels_last(w);
}

// The layouts that its plan asks for, where it does not
template <class Impl> Layouts asked(const Chosen<typename Impl::Rung>& c) {
  if constexpr (Impl::takes_channels_last) return {};
  else return c.plan.layouts;
}

// Whether what it writes is to be channels_last where the caller asks for that
template <class Impl> bool writes_channels_last(const Chosen<typename Impl::Rung>& c) {
  return as_they_lie<Impl>(c) || asked<Impl>(c).output;
}

// Whether operands must begin on a multiple of 16 bytes
template <class Impl> bool wants_aligned(const Chosen<typename Impl::Rung>& c) {
  if constexpr (Impl::takes_channels_last) return c.rung->as_they_lie;
  else return c.rung->as_they_lie || c.plan.aligned;
}

// `t` as the chosen rung takes it, or in the layout that its plan asks for; where it copies 16 bytes at a time, on a
// multiple of them: views may begin anywhere.
template <class Impl> Tensor packed_for(const Chosen<typename Impl::Rung>& c, const Tensor& t, bool channels_last) {
  constexpr uintptr_t kAligned = 16;
  const Tensor dense = in_layout<Impl>(t, as_they_lie<Impl>(c) ? lies_channels_last(t) : channels_last);
  if (!wants_aligned<Impl>(c) || reinterpret_cast<uintptr_t>(dense.data_ptr()) % kAligned == 0) return dense;
  Tensor copy = empty(sizes_of(dense), dense.scalar_type(), dense,
                      lies_channels_last(dense) ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
  torch::stable::copy_(copy, dense);
  return copy;
}
template <class Impl> Tensor packed_first(const Chosen<typename Impl::Rung>& c, const Tensor& t) {
  return packed_for<Impl>(c, t, asked<Impl>(c).first);
}
template <class Impl> Tensor packed_second(const Chosen<typename Impl::Rung>& c, const Tensor& t) {
  return packed_for<Impl>(c, t, asked<Impl>(c).second);
}

// A pass on the device of `t`
template <class Impl>
Problem problem_on(const Tensor& t, Pass pass, DType dtype, const Conv2d& g, bool channels_last, Layouts layouts) {
  return {.pass = pass,
          .dtype = dtype,
          .g = g,
          .channels_last = channels_last,
          .layouts = layouts,
          .capability = Impl::capability(t),
          .multiprocessors = Impl::multiprocessors(t)};
}

// A tensor of these sizes, in the layout that the problem asks for, which run(chosen, first, second, bias or null, out)
// fills: the operands as the algorithm takes them. bias: or null
template <class Impl, class Run>
Tensor made_of(const Problem& problem, int64_t algo, const Sizes& sizes, const Tensor& first, const Tensor& second,
               const Tensor* bias, const Run& run) {
  const auto chosen = resolve<typename Impl::Rung>(algo, problem);
  const bool lie = writes_channels_last<Impl>(chosen);
  Tensor made = output(sizes, first.scalar_type(), first, problem.channels_last, lie);
  if (made.numel() > 0) {
    const Tensor a = packed_first<Impl>(chosen, first), b = packed_second<Impl>(chosen, second),
                 added = bias ? packed<Impl>(*bias) : b;
    run(chosen, a, b, bias ? &added : nullptr, made);
  }
  return to_requested_layout<Impl>(made, problem.channels_last, lie);
}

// x [N, C, H, W], w [K, C/groups, R, S], bias [K] -> y [N, K, P, Q]
template <class Impl>
Tensor conv2d_forward(Tensor x, Tensor w, std::optional<Tensor> bias, Sizes geometry, int64_t algo) {
  const char* op = "conv2d";
  const DType dtype = common_dtype(op, {{"input", x}, {"weight", w}, {"bias", bias ? *bias : w}});
  const Conv2d g = make_conv2d(op, sizes_of(x), sizes_of(w), geometry);
  if (bias) check_sizes(op, {"bias", *bias}, {g.K});
  const bool channels_last = is_channels_last(x) || is_channels_last(w);
  const Sizes outputs{g.N, g.K, g.P, g.Q};
  const Problem problem =
      problem_on<Impl>(x, Pass::forward, dtype, g, channels_last, layouts(x, w, outputs, channels_last));
  return made_of<Impl>(problem, algo, outputs, x, w, bias ? &*bias : nullptr,
                       [&](const auto& chosen, const Tensor& xp, const Tensor& wp, const Tensor* bp, Tensor& y) {
                         Impl(x).forward(chosen, problem, in("input", xp), in("weight", wp), in_or_null("bias", bp),
                                         out("output", y));
                       });
}

// ---- gradients: of arguments that were checked. `name`: of dy, in reports ----

// dx [N, C, H, W] of dy and w; bias [C] or null, which is added
template <class Impl>
Tensor input_gradient(const Conv2d& g, DType dtype, const Tensor& dy, const char* name, const Tensor& w,
                      bool channels_last, int64_t algo, const Tensor* bias = nullptr) {
  const Sizes x{g.N, g.C, g.H, g.W};
  const Problem problem = problem_on<Impl>(dy, Pass::dgrad, dtype, g, channels_last, layouts(dy, w, x, channels_last));
  return made_of<Impl>(problem, algo, x, dy, w, bias,
                       [&](const auto& chosen, const Tensor& dyp, const Tensor& wp, const Tensor* bp, Tensor& dx) {
                         Impl(dy).dgrad(chosen, problem, in(name, dyp), in("weight", wp), out("grad_input", dx),
                                        in_or_null("bias", bp));
                       });
}

// dw [K, C/groups, R, S] of dy and x, and db [K], empty unless with_bias
template <class Impl>
std::tuple<Tensor, Tensor> weight_gradient(const Conv2d& g, DType dtype, const Tensor& dy, const char* name,
                                           const Tensor& x, bool with_bias, bool channels_last, int64_t algo) {
  const Sizes w{g.K, g.C / g.groups, g.R, g.S};
  const Problem problem = problem_on<Impl>(dy, Pass::wgrad, dtype, g, channels_last || is_channels_last(x),
                                           layouts(dy, x, w, channels_last));
  const auto chosen = resolve<typename Impl::Rung>(algo, problem);

  const bool lie = writes_channels_last<Impl>(chosen);
  const Tensor dyp = packed_first<Impl>(chosen, dy), xp = packed_second<Impl>(chosen, x);
  Tensor dw = output(w, dy.scalar_type(), dy, channels_last, lie),
         db = empty({with_bias ? g.K : 0}, dy.scalar_type(), dy);
  const bool bias = db.numel() > 0;
  const Impl backend(dy);
  if (dw.numel() > 0)
    backend.wgrad(chosen, problem, in(name, dyp), in("input", xp), out("grad_weight", dw),
                  out_or_null("grad_bias", bias ? &db : nullptr));
  else if (bias) backend.bias_grad(problem, in(name, dyp), out("grad_bias", db));
  return {to_requested_layout<Impl>(dw, channels_last, lie), db};
}

// db [K] of dy
template <class Impl> Tensor bias_gradient(const Conv2d& g, DType dtype, const Tensor& dy, const char* name) {
  const Problem problem{.pass = Pass::wgrad, .dtype = dtype, .g = g, .layouts = {.first = lies_channels_last(dy)}};
  Tensor db = empty({g.K}, dy.scalar_type(), dy);
  if (db.numel() > 0) {
    const Tensor dyp = packed<Impl>(dy);
    Impl(dy).bias_grad(problem, in(name, dyp), out("grad_bias", db));
  }
  return db;
}

// dy [N, K, P, Q], w [K, C/groups, R, S], bias [C] -> dx [N, C, H, W], where input_size is (H, W)
template <class Impl>
Tensor conv2d_dgrad(Tensor dy, Tensor w, Sizes input_size, Sizes geometry, bool channels_last, int64_t algo,
                    std::optional<Tensor> bias) {
  const char* op = "conv2d_dgrad";
  const DType dtype = common_dtype(op, {{"grad_output", dy}, {"weight", w}, {"bias", bias ? *bias : w}});
  CONVLAB_CHECK(dy.dim() == 4 && w.dim() == 4, op, ": grad_output ", text(sizes_of(dy)), " and weight ",
                text(sizes_of(w)), " must have four dimensions");
  check_list(op, "input_size", input_size, 2, 0);
  check_geometry(op, geometry);
  const Sizes x{dy.size(0), w.size(1) * geometry[8], input_size[0], input_size[1]};
  const Conv2d g = make_conv2d(op, x, sizes_of(w), geometry);
  check_sizes(op, {"grad_output", dy}, {g.N, g.K, g.P, g.Q});
  if (bias) check_sizes(op, {"bias", *bias}, {g.C});
  return input_gradient<Impl>(g, dtype, dy, "grad_output", w, channels_last, algo, bias ? &*bias : nullptr);
}

// dy [N, K, P, Q], x [N, C, H, W] -> dw [K, C/groups, R, S], where kernel_size is (R, S), and db [K], empty unless
// with_bias
template <class Impl>
std::tuple<Tensor, Tensor> conv2d_wgrad(Tensor dy, Tensor x, Sizes kernel_size, Sizes geometry, bool with_bias,
                                        bool channels_last, int64_t algo) {
  const char* op = "conv2d_wgrad";
  const DType dtype = common_dtype(op, {{"grad_output", dy}, {"input", x}});
  CONVLAB_CHECK(dy.dim() == 4 && x.dim() == 4, op, ": grad_output ", text(sizes_of(dy)), " and input ",
                text(sizes_of(x)), " must have four dimensions");
  check_list(op, "kernel_size", kernel_size, 2, 1);
  check_geometry(op, geometry);
  const int64_t groups = geometry[8];
  CONVLAB_CHECK(groups >= 1 && x.size(1) % groups == 0, op, ": groups=", groups, " must divide the input's ", x.size(1),
                " channels");
  const Sizes w{dy.size(1), x.size(1) / groups, kernel_size[0], kernel_size[1]};
  const Conv2d g = make_conv2d(op, sizes_of(x), w, geometry);
  check_sizes(op, {"grad_output", dy}, {g.N, g.K, g.P, g.Q});
  return weight_gradient<Impl>(g, dtype, dy, "grad_output", x, with_bias, channels_last, algo);
}

// dy [N, K, P, Q], x [N, C, H, W], w [K, C/groups, R, S] -> dx, dw, and db [K], empty unless with_bias
template <class Impl>
std::tuple<Tensor, Tensor, Tensor> conv2d_backward(Tensor dy, Tensor x, Tensor w, Sizes geometry, bool with_bias,
                                                   int64_t dgrad_algo, int64_t wgrad_algo) {
  const char* op = "conv2d_backward";
  const DType dtype = common_dtype(op, {{"grad_output", dy}, {"input", x}, {"weight", w}});
  const Conv2d g = make_conv2d(op, sizes_of(x), sizes_of(w), geometry);
  check_sizes(op, {"grad_output", dy}, {g.N, g.K, g.P, g.Q});
  const bool channels_last = is_channels_last(x) || is_channels_last(w);
  Tensor dx = input_gradient<Impl>(g, dtype, dy, "grad_output", w, channels_last, dgrad_algo);
  auto [dw, db] = weight_gradient<Impl>(g, dtype, dy, "grad_output", x, with_bias, channels_last && !only_contiguous(w),
                                        wgrad_algo);
  return {dx, dw, db};
}

// dy [N, K, P, Q] -> db [K]
template <class Impl> Tensor conv2d_bias_grad(Tensor dy) {
  const char* op = "conv2d_bias_grad";
  const DType dtype = dtype_of(op, {"grad_output", dy});
  CONVLAB_CHECK(dy.dim() == 4, op, ": grad_output must be [N, K, P, Q], got ", text(sizes_of(dy)));
  check_list(op, "grad_output", sizes_of(dy), 4, 0);
  check_plane(op, "grad_output", dy.size(2), dy.size(3));
  Conv2d g{};
  g.N = int(dy.size(0)), g.K = int(dy.size(1)), g.P = int(dy.size(2)), g.Q = int(dy.size(3));
  return bias_gradient<Impl>(g, dtype, dy, "grad_output");
}

}  // namespace convlab
