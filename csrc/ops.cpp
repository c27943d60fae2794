// The operator surface: every schema of convlab on one page. The backends register their implementations in cpu/ and
// cuda/; fake implementations are in convlab/ops.py. Operators are private: convlab.functional is the way in. All but
// those whose names end in _ are functional.
//
//   x [N, C, H, W]   w [K, C/groups, R, S]   bias, db [K]   y, dy [N, K, P, Q]
//   geometry: stride (height, width), padding (top, left, bottom, right), dilation (height, width), groups. In one
//   list, because each list costs a call half a microsecond
//   window, of a pooling: kernel_size, stride, padding, dilation, each (height, width); an average's dilation is 1
//   channels_last: whether dx and dw shall lie so, as x, or w of a convolution, did
//   algo: a number of csrc/algorithms.h, 0 to have one chosen
//   input_size (H, W) and kernel_size (R, S) are SymInt where they are sizes of a tensor, so that shapes stay dynamic
//   offsets [N, C, P, Q]: which tap of its window was the largest, r * S + s
//   ending: of a block, activation (0 none, 1 relu, 2 leaky_relu, 3 relu6) and max pooling's window (height, width).
//   winners: the offsets, with 128 added where the gradient passes the activation as it is
#include "host/registration.h"

CONVLAB_REGISTER_OPERATORS(m) {
  m.def("conv2d_forward(Tensor x, Tensor w, Tensor? bias, int[9] geometry, int algo) -> Tensor");
  m.def(
      "conv2d_dgrad(Tensor dy, Tensor w, SymInt[2] input_size, int[9] geometry, bool channels_last, int algo, Tensor? "
      "bias=None) -> Tensor");  // bias [C]: of a transposed convolution, whose forward this is; on the CPU
  m.def(
      "conv2d_wgrad(Tensor dy, Tensor x, SymInt[2] kernel_size, int[9] geometry, bool with_bias, bool channels_last, "
      "int algo) -> (Tensor dw, Tensor db)");
  m.def(
      "conv2d_backward(Tensor dy, Tensor x, Tensor w, int[9] geometry, bool with_bias, int dgrad_algo, int wgrad_algo) "
      "-> (Tensor dx, Tensor dw, Tensor db)");  // dgrad and wgrad in one call, where nobody differentiates them
  m.def("conv2d_bias_grad(Tensor dy) -> Tensor");

  m.def(
      "conv2d_block_forward(Tensor x, Tensor w, Tensor? bias, int[9] geometry, int[3] ending, float negative_slope, "
      "bool "
      "with_winners, int algo) -> (Tensor y, Tensor winners)");
  // dx of w, dw of x, each empty where that is not given; algo: of dgrad and wgrad
  m.def(
      "conv2d_block_backward(Tensor dy, Tensor winners, Tensor? x, Tensor? w, SymInt[2] input_size, SymInt[2] "
      "kernel_size, int[9] geometry, int[3] ending, float negative_slope, bool with_bias, bool dx_channels_last, bool "
      "dw_channels_last, int[2] algo) -> (Tensor dx, Tensor dw, Tensor db)");

  m.def("max_pool2d_forward(Tensor x, int[8] window, bool ceil_mode, bool with_offsets) -> (Tensor y, Tensor offsets)");
  m.def(
      "max_pool2d_backward(Tensor dy, Tensor offsets, SymInt[2] input_size, int[8] window, bool channels_last) -> "
      "Tensor");
  m.def("max_pool2d_gather(Tensor x, Tensor offsets, int[8] window) -> Tensor");
  m.def("max_pool2d_indices(Tensor offsets, SymInt[2] input_size, int[8] window) -> Tensor");

  // divisor: what sums are divided by, 0 to count the window's elements
  m.def("avg_pool2d_forward(Tensor x, int[8] window, bool ceil_mode, bool count_include_pad, int divisor) -> Tensor");
  m.def(
      "avg_pool2d_backward(Tensor dy, SymInt[2] input_size, int[8] window, bool count_include_pad, int divisor, bool "
      "channels_last) -> Tensor");

  // indices: h W + w of each plane [H, W]. Adaptive windows and gather read x there, unpool writes there
  m.def("adaptive_avg_pool2d_forward(Tensor x, SymInt[2] output_size) -> Tensor");
  m.def("adaptive_avg_pool2d_backward(Tensor dy, SymInt[2] input_size, bool channels_last) -> Tensor");
  m.def("adaptive_max_pool2d_forward(Tensor x, SymInt[2] output_size) -> (Tensor y, Tensor indices)");
  m.def("adaptive_max_pool2d_backward(Tensor dy, Tensor indices, SymInt[2] input_size, bool channels_last) -> Tensor");
  m.def("max_unpool2d_forward(Tensor x, Tensor indices, SymInt[2] output_size, bool channels_last) -> Tensor");
  m.def("planes_gather(Tensor x, Tensor indices, bool channels_last) -> Tensor");

  // positive: bools like x; as_bits: of a contiguous or channels_last x, bytes of the bits of eight elements in memory's
  // order
  m.def(
      "leaky_relu_forward(Tensor x, float negative_slope, bool with_positive, bool as_bits=False) -> (Tensor y, Tensor "
      "positive)");
  m.def("leaky_relu_backward(Tensor dy, Tensor positive, float negative_slope, bool channels_last=False) -> Tensor");
  m.def("leaky_relu_(Tensor(a!) x, float negative_slope, bool with_positive, bool as_bits=False) -> Tensor positive");
  m.def("relu_forward(Tensor x) -> Tensor");
  m.def("relu_(Tensor(a!) x) -> ()");
  m.def("relu_backward(Tensor dy, Tensor y) -> Tensor");
  m.def("relu6_forward(Tensor x) -> Tensor");
  m.def("relu6_(Tensor(a!) x) -> ()");
  m.def("relu6_backward(Tensor dy, Tensor y) -> Tensor");

  // w [1], or [C] where x is [N, C, ...]. scale: t w where x <= 0 or NaN; elsewhere t if keep, else 0
  m.def("prelu_scale(Tensor t, Tensor x, Tensor w, bool keep) -> Tensor");
  m.def("prelu_wgrad(Tensor dy, Tensor t, Tensor x, SymInt channels) -> Tensor");

  // The end of a residual block, x = activated(x + residual), as batch normalization below
  m.def("add_activated_(Tensor(a!) x, Tensor residual, int activation, float negative_slope) -> ()");

  // Batch normalization in eval(), of x [N, C, ...] with an activation behind it, and folded into the w and bias of the
  // convolution before it; on the CPU, where nobody wants a gradient (convlab/_chains.py)
  m.def(
      "batch_norm_forward(Tensor x, Tensor mean, Tensor var, Tensor? gamma, Tensor? beta, float eps, int activation, "
      "float negative_slope) -> Tensor");
  m.def(  // of the parts' channels one behind another
      "batch_norm_joined(Tensor[] parts, Tensor mean, Tensor var, Tensor? gamma, Tensor? beta, float eps, int "
      "activation, float negative_slope) -> Tensor");
  m.def(
      "batch_norm_(Tensor(a!) x, Tensor mean, Tensor var, Tensor? gamma, Tensor? beta, float eps, int activation, "
      "float negative_slope) -> ()");
  m.def(
      "batch_norm_folded(Tensor w, Tensor? bias, Tensor mean, Tensor var, Tensor? gamma, Tensor? beta, float eps) -> "
      "(Tensor w, Tensor bias)");
  // By the batch's own statistics, which running_mean and running_var follow; float32 and float64. terms [4, C]: mean,
  // rstd = 1 / sqrt(var + eps), scale = gamma rstd, shift = beta - mean scale
  m.def(
      "batch_norm_train(Tensor x, Tensor? gamma, Tensor? beta, Tensor(a!)? running_mean, Tensor(b!)? running_var, "
      "float momentum, float eps, int activation, float negative_slope) -> (Tensor y, Tensor terms)");
  m.def(
      "batch_norm_train_backward(Tensor dy, Tensor x, Tensor terms, int activation, float negative_slope) -> "
      "(Tensor dx, Tensor dgamma, Tensor dbeta)");
}
