// The operators of a block, a convolution with an activation and max pooling, up to the backend. Beside what
// conv2d_operators.h asks of it, an Impl has
//
//   void finish(const Ending&, const Pool2d&, int64_t side_by_side, DType, const void* x, void* y, void* winners_or_null)
//     // y may be x where nothing is pooled
//   void spread(const Ending&, const Pool2d&, int64_t side_by_side, DType, const void* dy, const void* winners, void* dx)
//   bool finishes(const Chosen<Rung>&, const Ending&, const Problem&, bool with_winners)
//     // whether the rung can do it all in one go, which is
//   void forward(const Chosen<Rung>&, const Problem&, const Ending&, const Pool2d&, int64_t side_by_side, const void* x,
//                const void* w, const void* bias_or_null, void* y, void* winners_or_null)
//
// where so many channels lie side by side: K, where tensors lie channels_last, else 1.
// winners [N, K, P, Q] lie as offsets of max pooling do (max_pool2d_operators.h), on CUDA always in NCHW.
#pragma once
#include "geometry/ending.h"
#include "host/conv2d_operators.h"
#include "host/pool2d_operators.h"

namespace convlab {

// ending: activation (none, relu, leaky_relu, relu6) and window (height, width)
inline Ending make_ending(const char* op, const Sizes& ending, double negative_slope) {
  check_list(op, "ending", ending, 3, 0);
  CONVLAB_CHECK(ending[0] <= 3, op, ": activation number ", ending[0],
                " must be 0 (none), 1 (relu), 2 (leaky_relu) or 3 (relu6)");
  CONVLAB_CHECK(ending[1] >= 1 && ending[2] >= 1 && ending[1] <= kMostTaps && ending[1] * ending[2] <= kMostTaps, op,
                ": window ", text({ending[1], ending[2]}), " must have 1 to ", kMostTaps, " elements");
  return {Activation(ending[0]), int(ending[1]), int(ending[2]), negative_slope};
}

inline Pool2d pool_of(const char* op, const Ending& e, const Conv2d& g) {
  return make_pool2d(op, {g.N, g.K, g.P, g.Q}, {e.R, e.S, e.R, e.S, 0, 0, 1, 1}, false);
}

// x [N, C, H, W], w [K, C/groups, R, S], bias [K] -> y and winners [N, K, P, Q], or winners [0] unless with_winners
template <class Impl>
std::tuple<Tensor, Tensor> conv2d_block_forward(Tensor x, Tensor w, std::optional<Tensor> bias, Sizes geometry,
                                                Sizes ending, double negative_slope, bool with_winners, int64_t algo) {
  const char* op = "conv2d_block";
  const DType dtype = common_dtype(op, {{"input", x}, {"weight", w}, {"bias", bias ? *bias : w}});
  const Conv2d g = make_conv2d(op, sizes_of(x), sizes_of(w), geometry);
  if (bias) check_sizes(op, {"bias", *bias}, {g.K});
  const Ending e = make_ending(op, ending, negative_slope);
  const Pool2d pool = pool_of(op, e, g);
  const bool channels_last = is_channels_last(x) || is_channels_last(w);
  const Sizes all{g.N, g.K, g.P, g.Q}, outputs{g.N, g.K, pool.P, pool.Q};
  const Problem problem =
      problem_on<Impl>(x, Pass::forward, dtype, g, channels_last, layouts(x, w, all, channels_last));
  auto chosen = resolve<typename Impl::Rung>(algo, problem);
  const bool finishes = Impl(x).finishes(chosen, e, problem, with_winners);
  if (finishes && !as_they_lie<Impl>(chosen) && asked<Impl>(chosen).output)  // an epilogue stores NCHW
    chosen = resolve<typename Impl::Rung>(chosen.row->id, problem_on<Impl>(x, Pass::forward, dtype, g, false, {}));

  Tensor y = output<Impl>(outputs, x.scalar_type(), x, channels_last);
  Tensor winners =
      with_winners ? output<Impl>(outputs, ScalarType::Byte, x, channels_last) : empty({0}, ScalarType::Byte, x);
  if (y.numel() > 0) {
    const bool lie = writes_channels_last<Impl>(chosen);
    const Tensor xp = packed_first<Impl>(chosen, x), wp = packed_second<Impl>(chosen, w),
                 bp = bias ? packed<Impl>(*bias) : wp;
    const Impl backend(x);
    const int64_t side_by_side = problem.layouts.output ? g.K : 1;
    if (finishes) {
      backend.forward(chosen, problem, e, pool, side_by_side, in("input", xp), in("weight", wp),
                      in_or_null("bias", bias ? &bp : nullptr), out("output", y),
                      out_or_null("winners", with_winners ? &winners : nullptr));
      return {to_requested_layout<Impl>(y, channels_last), winners};
    }
    const bool over = !e.pools() && lie == Impl::takes_channels_last;  // an activation alone is made in place
    Tensor full = over ? y : output(all, x.scalar_type(), x, channels_last, lie);
    backend.forward(chosen, problem, in("input", xp), in("weight", wp), in_or_null("bias", bias ? &bp : nullptr),
                    out("convolution", full));
    const Tensor fp = packed<Impl>(full);  // as the ending takes it
    backend.finish(e, pool, side_by_side, dtype, in("convolution", fp), out("output", y),
                   out_or_null("winners", with_winners ? &winners : nullptr));
  }
  return {to_requested_layout<Impl>(y, channels_last), winners};
}

// dy, winners [N, K, P, Q] -> dx [N, C, H, W] of w, dw [K, C/groups, R, S] of x, and db [K]: empty where w or x is not
// given, or unless with_bias. input_size is (H, W), kernel_size (R, S), algo the numbers of dgrad and wgrad.
template <class Impl>
std::tuple<Tensor, Tensor, Tensor> conv2d_block_backward(Tensor dy, Tensor winners, std::optional<Tensor> x,
                                                         std::optional<Tensor> w, Sizes input_size, Sizes kernel_size,
                                                         Sizes geometry, Sizes ending, double negative_slope,
                                                         bool with_bias, bool dx_channels_last, bool dw_channels_last,
                                                         Sizes algo) {
  const char* op = "conv2d_block_backward";
  CONVLAB_CHECK(x || w, op, ": input, weight or both must be given");
  const DType dtype = common_dtype(op, {{"grad_output", dy}, {"input", x ? *x : dy}, {"weight", w ? *w : dy}});
  check_same_device(op, {"grad_output", dy}, {"winners", winners});
  CONVLAB_CHECK(dy.dim() == 4 && (!x || x->dim() == 4) && (!w || w->dim() == 4), op,
                ": grad_output, input and weight must have four dimensions");
  check_list(op, "input_size", input_size, 2, 0);
  check_list(op, "kernel_size", kernel_size, 2, 1);
  check_list(op, "algo", algo, 2, INT64_MIN);
  check_geometry(op, geometry);
  const int64_t groups = geometry[8], channels = x ? x->size(1) : w->size(1) * groups;
  CONVLAB_CHECK(groups >= 1 && channels % groups == 0, op, ": groups=", groups, " must divide the input's ", channels,
                " channels");
  const Sizes xs{dy.size(0), channels, input_size[0], input_size[1]},
      ws{dy.size(1), channels / groups, kernel_size[0], kernel_size[1]};
  if (x) check_sizes(op, {"input", *x}, xs);
  if (w) check_sizes(op, {"weight", *w}, ws);
  const Conv2d g = make_conv2d(op, xs, ws, geometry);
  const Ending e = make_ending(op, ending, negative_slope);
  const Pool2d pool = pool_of(op, e, g);
  check_sizes(op, {"grad_output", dy}, {g.N, g.K, pool.P, pool.Q});
  check_sizes(op, {"winners", winners}, sizes_of(dy));
  CONVLAB_CHECK(winners.scalar_type() == ScalarType::Byte, op, ": winners is ", name_of(winners.scalar_type()),
                ", expected uint8");

  const bool channels_last = dx_channels_last || (x && is_channels_last(*x));
  Tensor full = output<Impl>({g.N, g.K, g.P, g.Q}, dy.scalar_type(), dy, channels_last);
  const Impl backend(dy);
  if (full.numel() > 0) {
    const Tensor dyp = packed_as<Impl>(dy, channels_last), wp = packed_as<Impl>(winners, channels_last);
    backend.spread(e, pool, lies_channels_last(full) ? g.K : 1, dtype, in("grad_output", dyp), in("winners", wp),
                   out("grad_convolution", full));
  }
  const char* name = "grad_convolution";
  const auto none = [&] { return empty({0}, dy.scalar_type(), dy); };
  Tensor dx = w ? input_gradient<Impl>(g, dtype, full, name, *w, dx_channels_last, algo[0]) : none();
  if (!x) return {dx, none(), with_bias ? bias_gradient<Impl>(g, dtype, full, name) : none()};
  auto [dw, db] = weight_gradient<Impl>(g, dtype, full, name, *x, with_bias, dw_channels_last, algo[1]);
  return {dx, dw, db};
}

}  // namespace convlab
