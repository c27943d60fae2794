// Batch normalization in eval(), where nobody wants a gradient: folded into the convolution before it, or in one pass
// with the activation behind it.
#include "cpu/norm/batch_norm.h"

#include <cmath>

#include "cpu/parallel.h"
#include "host/conv2d_block_operators.h"
#include "host/prelu_operators.h"
#include "host/registration.h"

namespace convlab {
namespace {

using Optional = std::optional<Tensor>;

// The parameters and statistics [channels] of a layer; bias: of the convolution before it
struct Statistics {
  Tensor mean, var;
  Optional gamma, beta, bias;
  double eps;

  void check(const char* op, const Named& of, int64_t channels) {
    const auto each = [&](const char* name, Tensor& t) {
      common_dtype(op, {of, {name, t}});
      check_sizes(op, {name, t}, {channels});
      if (!t.is_contiguous()) t = torch::stable::contiguous(t);  // a call of the dispatcher for each
    };
    each("running_mean", mean), each("running_var", var);
    if (gamma) each("weight of the normalization", *gamma);
    if (beta) each("bias of the normalization", *beta);
    if (bias) each("bias", *bias);
  }
};

// scale = gamma / sqrt(var + eps), shift = beta + (bias - mean) scale, of the type of sums
template <class T> struct Terms {
  using A = acc_t<T>;
  std::vector<A> scale, shift;

  Terms(const Statistics& s, int64_t channels) : scale(channels), shift(channels) {
    const T *const mean = data(s.mean), *const var = data(s.var), *const gamma = data(s.gamma),
                   *const beta = data(s.beta), *const bias = data(s.bias);
    for (int64_t c = 0; c < channels; c++) {
      scale[c] = (gamma ? A(gamma[c]) : A(1)) / std::sqrt(A(var[c]) + A(s.eps));
      shift[c] = (beta ? A(beta[c]) : A(0)) + ((bias ? A(bias[c]) : A(0)) - A(mean[c])) * scale[c];
    }
  }

 private:
  static const T* data(const Tensor& t) { return static_cast<const T*>(t.const_data_ptr()); }
  static const T* data(const Optional& t) { return t ? data(*t) : nullptr; }
};

void over_rows(const Normalization& n, DType dtype, const void* scale, const void* shift, const Tensor& x, Tensor& y) {
  parallel_over(n.g.rows(), n.g.row() * 2 * bytes_of(dtype),
                [&, f = kernels::normalize.of(dtype), from = x.const_data_ptr(), to = y.mutable_data_ptr()](
                    int64_t begin, int64_t end) { f(n, scale, shift, from, to, begin, end); });
}

// w [K, ...], bias [K] of a convolution -> those of the one that does what it and the normalization after it do
std::tuple<Tensor, Tensor> batch_norm_folded(Tensor w, Optional bias, Tensor mean, Tensor var, Optional gamma,
                                             Optional beta, double eps) {
  const char* op = "batch_norm";
  const DType dtype = dtype_of(op, {"weight", w});
  CONVLAB_CHECK(w.dim() >= 1, op, ": weight has no dimension");
  Statistics s{mean, var, gamma, beta, bias, eps};
  s.check(op, {"weight", w}, w.size(0));
  const Tensor wd = dense(w);
  Tensor folded = empty_as(wd, w.scalar_type()), shift = empty({w.size(0)}, w.scalar_type(), w);
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const Terms<T> terms(s, w.size(0));
    if (w.numel() > 0)
      over_rows({by_dimension(wd, 0), Activation::none, 1}, dtype, terms.scale.data(), nullptr, wd, folded);
    T* const to = static_cast<T*>(shift.mutable_data_ptr());
    for (int64_t k = 0; k < w.size(0); k++) to[k] = T(terms.shift[k]);
  });
  return {folded, shift};
}

// x -> y, which may be x: both dense
void normalized(const Tensor& x, Tensor& y, Statistics s, int64_t activation, double slope) {
  const char* op = "batch_norm";
  const DType dtype = dtype_of(op, {"input", x});
  CONVLAB_CHECK(x.dim() >= 2, op, ": input has ", x.dim(), " dimensions, expected 2 or more");
  s.check(op, {"input", x}, x.size(1));
  const Ending e = make_ending(op, {activation, 1, 1}, slope);
  if (x.numel() > 0)
    dispatch(dtype, [&](auto tag) {
      const Terms<typename decltype(tag)::type> terms(s, x.size(1));
      over_rows({by_dimension(x, 1), e.activation, slope}, dtype, terms.scale.data(), terms.shift.data(), x, y);
    });
}
Tensor batch_norm_forward(Tensor x, Tensor mean, Tensor var, Optional gamma, Optional beta, double eps,
                          int64_t activation, double slope) {
  const Tensor xd = dense(x);
  Tensor y = output_like(xd);
  normalized(xd, y, {mean, var, gamma, beta, {}, eps}, activation, slope);
  return y;
}
void batch_norm_(Tensor x, Tensor mean, Tensor var, Optional gamma, Optional beta, double eps, int64_t activation,
                 double slope) {
  Tensor xd = dense(x);
  normalized(xd, xd, {mean, var, gamma, beta, {}, eps}, activation, slope);
  write_back(x, xd);
}

}  // namespace
}  // namespace convlab

CONVLAB_REGISTER_CPU(m) {
  m.impl("batch_norm_folded", TORCH_BOX(&convlab::batch_norm_folded));
  m.impl("batch_norm_forward", TORCH_BOX(&convlab::batch_norm_forward));
  m.impl("batch_norm_", TORCH_BOX(&convlab::batch_norm_));
}
