// Convolution on the CPU: the algorithms by number, spread over threads.
#include "host/conv2d_operators.h"

#include "cpu/conv2d_depthwise.h"
#include "cpu/conv2d_direct.h"
#include "cpu/conv2d_reference.h"
#include "cpu/conv2d_register_tiled.h"
#include "cpu/integers.h"
#include "cpu/parallel.h"
#include "host/registration.h"

namespace convlab {
namespace {

// Strides of weights for a pass whose vectors are over k (forward, wgrad) or over c (dgrad)
Filters filters_of(const Conv2d& g, bool channels_last, bool lanes_are_k) {
  const int64_t taps = int64_t(g.R) * g.S, k = g.Cg() * taps, c = channels_last ? 1 : taps,
                tap = channels_last ? g.Cg() : 1;
  return {g.groups,   lanes_are_k ? g.Kg() : g.Cg(), lanes_are_k ? g.Cg() : g.Kg(), g.R, g.S,
          g.Kg() * k, lanes_are_k ? k : c,           lanes_are_k ? c : k,           tap};
}

// A convolution of 1 x 1 filters does not care how a contiguous plane is cut into rows: here into such as fill whole
// vectors, if that goes.
Conv2d with_rows_of_vectors(Conv2d g, int lanes, bool contiguous) {
  const bool pointwise = g.R == 1 && g.S == 1 && g.stride_h == 1 && g.stride_w == 1 && g.pad_h == 0 && g.pad_w == 0 &&
                         g.P == g.H && g.Q == g.W;
  const int plane = g.H * g.W;
  if (!pointwise || !contiguous || plane % lanes) return g;
  int rows = plane / lanes;  // the longest rows of up to 512 elements
  for (int i = 1; i * lanes <= 512; i++)
    if (plane / lanes % i == 0) rows = plane / lanes / i;
  g.H = g.P = rows, g.W = g.Q = plane / rows;
  return g;
}

// The rows and columns of x that filters of one row or column never meet, left out.
Conv2d without_skipped(Conv2d g, Strides& x) {
  if (g.R == 1 && g.pad_h == 0 && (g.P - 1) * g.stride_h < g.H) x.h *= g.stride_h, g.H = g.P, g.stride_h = 1;
  if (g.S == 1 && g.pad_w == 0 && (g.Q - 1) * g.stride_w < g.W) x.w *= g.stride_w, g.W = g.Q, g.stride_w = 1;
  return g;
}

Product product(const Conv2d& g, int depth, int width, const AxisView& rows, const AxisView& columns,
                const Strides& source, const Strides& target) {
  return {g.N, g.groups, depth, width, rows, columns, source, target, 1, 1, 1, false};
}

struct Cpu {
  static constexpr Backend id = Backend::cpu;
  static constexpr bool any_layout = true;
  const Layouts layouts;
  Cpu(const Tensor&, const Layouts& l) : layouts(l) {}

  void forward(Algorithm algorithm, const Conv2d& shape, DType dtype, const void* x, const void* w, const void* bias,
               void* y) const {
    const CpuKernels& kernels = cpu_kernels();
    Conv2d g = with_rows_of_vectors(shape, kernels.lanes(dtype), !layouts.first && !layouts.output);
    Strides xs = x_strides(g, layouts.first);
    if (algorithm == Algorithm::register_tiled) g = without_skipped(g, xs);
    const Classes rows(forward_classes(rows_of(g))), columns(forward_classes(columns_of(g)));
    const Product p = product(g, g.Cg(), g.Kg(), rows.view(g.R, g.H, g.P), columns.view(g.S, g.W, g.Q), xs,
                              y_strides(g, layouts.output));
    const Filters f = filters_of(g, layouts.second, true);
    dispatch(dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      const T *xt = static_cast<const T*>(x), *wt = static_cast<const T*>(w), *bt = static_cast<const T*>(bias);
      T* yt = static_cast<T*>(y);
      switch (algorithm) {
        case Algorithm::reference: return reference::forward(g, p.source, f, p.target, xt, wt, bt, yt);
        case Algorithm::direct:
          return direct::run(kernels, dtype, p, direct::Columns::forward(columns_of(g), kernels.lanes(dtype)), f, xt,
                             wt, bt, yt);
        case Algorithm::depthwise: return depthwise::run(kernels, dtype, g, false, p.source, p.target, xt, wt, bt, yt);
        default: return register_tiled::run(kernels, dtype, p, f, xt, wt, bt, yt);
      }
    });
  }

  void dgrad(Algorithm algorithm, const Conv2d& shape, DType dtype, const void* dy, const void* w, void* dx) const {
    const CpuKernels& kernels = cpu_kernels();
    const Conv2d g = with_rows_of_vectors(shape, kernels.lanes(dtype), !layouts.first && !layouts.output);
    const Classes rows(dgrad_classes(rows_of(g))), columns(dgrad_classes(columns_of(g)));
    const Product p = product(g, g.Kg(), g.Cg(), rows.view(g.R, g.P, g.H), columns.view(g.S, g.Q, g.W),
                              y_strides(g, layouts.first), x_strides(g, layouts.output));
    const Filters f = filters_of(g, layouts.second, false);
    dispatch(dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      const T *dyt = static_cast<const T*>(dy), *wt = static_cast<const T*>(w);
      T* dxt = static_cast<T*>(dx);
      switch (algorithm) {
        case Algorithm::reference: return reference::dgrad(g, p.source, f, p.target, dyt, wt, dxt);
        case Algorithm::direct:
          return direct::run<T>(kernels, dtype, p, direct::Columns::dgrad(columns_of(g), kernels.lanes(dtype)), f, dyt,
                                wt, nullptr, dxt);
        case Algorithm::depthwise:
          return depthwise::run<T>(kernels, dtype, g, true, p.source, p.target, dyt, wt, nullptr, dxt);
        default: return register_tiled::run<T>(kernels, dtype, p, f, dyt, wt, nullptr, dxt);
      }
    });
  }

  void wgrad(Algorithm algorithm, const Conv2d& shape, DType dtype, const void* dy, const void* x, void* dw,
             void* db) const {
    if (db) bias_grad(shape, dtype, dy, db);
    const CpuKernels& kernels = cpu_kernels();
    Strides xs = x_strides(shape, layouts.second);
    const Conv2d g = algorithm == Algorithm::register_tiled ? without_skipped(shape, xs) : shape;
    const Classes rows(forward_classes(rows_of(g))), columns(forward_classes(columns_of(g)));
    const Product p = product(g, g.Cg(), g.Kg(), rows.view(g.R, g.H, g.P), columns.view(g.S, g.W, g.Q), xs,
                              y_strides(g, layouts.first));
    const Filters f = filters_of(g, layouts.output, true);
    dispatch(dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      const T *dyt = static_cast<const T*>(dy), *xt = static_cast<const T*>(x);
      T* dwt = static_cast<T*>(dw);
      switch (algorithm) {
        case Algorithm::reference: return reference::wgrad(g, p.target, p.source, f, dyt, xt, dwt);
        case Algorithm::direct:
          return direct::wgrad(kernels, dtype, p, direct::Columns::forward(columns_of(g), kernels.lanes(dtype)), f,
                               rows_of(g), dyt, xt, dwt);
        case Algorithm::depthwise: return depthwise::wgrad(kernels, dtype, g, p.source, p.target, dyt, xt, dwt);
        default: return register_tiled::wgrad(kernels, dtype, p, f, rows_of(g), columns_of(g), dyt, xt, dwt);
      }
    });
  }

  // Of the layouts, only dy's counts
  void bias_grad(const Conv2d& g, DType dtype, const void* dy, void* db) const {
    const CpuKernels& kernels = cpu_kernels();
    const Strides strides = y_strides(g, layouts.first);
    const int64_t plane = int64_t(g.P) * g.Q, lanes = kernels.lanes(dtype),
                  pieces = strides.c == 1 ? (g.K + lanes - 1) / lanes : g.K;
    parallel_over(pieces, g.N * plane, [&](int64_t begin, int64_t end) {
      kernels.conv[int(dtype)].bias_grad(g.N, plane, strides, g.K, dy, db, begin, end);
    });
  }

 private:
  static Strides x_strides(const Conv2d& g, bool channels_last) { return strides_of(g.C, g.H, g.W, channels_last); }
  static Strides y_strides(const Conv2d& g, bool channels_last) { return strides_of(g.K, g.P, g.Q, channels_last); }
};

Tensor forward(Tensor x, Tensor w, std::optional<Tensor> bias, Sizes geometry, int64_t algo) {
  if (integers::is_integer(x)) return integers::conv2d_forward(x, w, bias, geometry);
  return conv2d_forward<Cpu>(std::move(x), std::move(w), std::move(bias), std::move(geometry), algo);
}

}  // namespace
}  // namespace convlab

CONVLAB_REGISTER_CPU(m) {
  m.impl("conv2d_forward", TORCH_BOX(&convlab::forward));
  m.impl("conv2d_dgrad", TORCH_BOX(&convlab::conv2d_dgrad<convlab::Cpu>));
  m.impl("conv2d_wgrad", TORCH_BOX(&convlab::conv2d_wgrad<convlab::Cpu>));
  m.impl("conv2d_bias_grad", TORCH_BOX(&convlab::conv2d_bias_grad<convlab::Cpu>));
}
