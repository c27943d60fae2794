// Batch normalization in eval(), where nobody wants a gradient: folded into the convolution before it, or in one pass
// with the activation behind it, and with the joining of channels before it.
#include "cpu/norm/batch_norm.h"

#include <cmath>

#include "cpu/norm/parameters.h"
#include "cpu/parallel.h"
#include "host/conv2d_block_operators.h"
#include "host/prelu_operators.h"
#include "host/registration.h"

namespace convlab {
namespace {

// scale = gamma / sqrt(var + eps), shift = beta + (bias - mean) scale, of the type of sums
template <class T> struct Terms {
  using A = acc_t<T>;
  std::vector<A> scale, shift;

  Terms(const Parameters& p, double eps, int64_t channels) : scale(channels), shift(channels) {
    const T *const mean = data<T>(p.mean), *const var = data<T>(p.var), *const gamma = data<T>(p.gamma),
                   *const beta = data<T>(p.beta), *const bias = data<T>(p.bias);
    for (int64_t c = 0; c < channels; c++) {
      scale[c] = (gamma ? A(gamma[c]) : A(1)) / std::sqrt(A(var[c]) + A(eps));
      shift[c] = (beta ? A(beta[c]) : A(0)) + ((bias ? A(bias[c]) : A(0)) - A(mean[c])) * scale[c];
    }
  }
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
  Parameters of{mean, var, gamma, beta, bias};
  of.check(op, {"weight", w}, w.size(0));
  const Tensor wd = dense(w);
  Tensor folded = empty_as(wd, w.scalar_type()), shift = empty({w.size(0)}, w.scalar_type(), w);
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const Terms<T> terms(of, eps, w.size(0));
    if (w.numel() > 0)
      over_rows({by_dimension(wd, 0), Activation::none, 1}, dtype, terms.scale.data(), nullptr, wd, folded);
    T* const to = out_data<T>(shift);
    for (int64_t k = 0; k < w.size(0); k++) to[k] = T(terms.shift[k]);
  });
  return {folded, shift};
}

// x -> y, which may be x: both dense
void normalized(const Tensor& x, Tensor& y, Parameters of, double eps, int64_t activation, double slope) {
  const char* op = "batch_norm";
  const DType dtype = dtype_of(op, {"input", x});
  CONVLAB_CHECK(x.dim() >= 2, op, ": input has ", x.dim(), " dimensions, expected 2 or more");
  of.check(op, {"input", x}, x.size(1));
  const Ending e = make_ending(op, {activation, 1, 1}, slope);
  if (x.numel() > 0)
    dispatch(dtype, [&](auto tag) {
      const Terms<typename decltype(tag)::type> terms(of, eps, x.size(1));
      over_rows({by_dimension(x, 1), e.activation, slope}, dtype, terms.scale.data(), terms.shift.data(), x, y);
    });
}
Tensor batch_norm_forward(Tensor x, Tensor mean, Tensor var, Optional gamma, Optional beta, double eps,
                          int64_t activation, double slope) {
  const Tensor xd = dense(x);
  Tensor y = output_like(xd);
  normalized(xd, y, {mean, var, gamma, beta, {}}, eps, activation, slope);
  return y;
}
void batch_norm_(Tensor x, Tensor mean, Tensor var, Optional gamma, Optional beta, double eps, int64_t activation,
                 double slope) {
  Tensor xd = dense(x);
  normalized(xd, xd, {mean, var, gamma, beta, {}}, eps, activation, slope);
  write_back(x, xd);
}

struct ByTorch {};  // which copies to other layouts
constexpr int64_t kPixels = 64;  // of which all parts' channels are written, before those of the next

// Parts [N, Ci, ...] -> what batch_norm_forward makes of their channels one behind another, channels_last where all parts
// are
Tensor batch_norm_joined(std::vector<Tensor> parts, Tensor mean, Tensor var, Optional gamma, Optional beta, double eps,
                         int64_t activation, double slope) {
  const char* op = "batch_norm";
  CONVLAB_CHECK(!parts.empty() && parts[0].dim() >= 2, op, ": input has no part of 2 dimensions or more");
  const Named first{"input", parts[0]};
  const DType dtype = dtype_of(op, first);
  Sizes sizes = sizes_of(parts[0]);
  int64_t channels = 0;
  bool channels_last = true;
  for (const Tensor& part : parts) {
    const Named named{"a part of input", part};
    common_dtype(op, {first, named});
    sizes[1] = part.dim() == parts[0].dim() ? part.size(1) : -1;
    check_sizes(op, named, sizes);
    channels += part.size(1), channels_last &= is_channels_last(part);
  }
  sizes[1] = channels;
  for (Tensor& part : parts) part = in_layout<ByTorch>(part, channels_last);
  Tensor y = empty(sizes, parts[0].scalar_type(), parts[0],
                   channels_last && !one_layout(sizes) ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
  Parameters of{mean, var, gamma, beta, {}};
  of.check(op, first, channels);
  const Ending e = make_ending(op, {activation, 1, 1}, slope);
  if (y.numel() == 0) return y;
  const int64_t positions = y.numel() / channels, inner = channels_last ? 1 : positions / y.size(0),
                outer = positions / inner, count = int64_t(parts.size());
  dispatch(dtype, [&, f = kernels::normalize.of(dtype)](auto tag) {
    using T = typename decltype(tag)::type;
    const Terms<T> terms(of, eps, channels);
    std::vector<int64_t> before(parts.size());
    for (int64_t i = 1; i < count; i++) before[i] = before[i - 1] + parts[i - 1].size(1);
    const auto write = [&](int64_t i, int64_t begin, int64_t end) {  // a part's outer positions
      const int64_t own = parts[i].size(1), rows = inner == 1 ? 1 : own;
      if (own == 0) return;
      f({{outer, own, inner}, e.activation, slope, own, channels}, terms.scale.data() + before[i],
        terms.shift.data() + before[i], parts[i].const_data_ptr(), out_data<T>(y) + before[i] * inner, begin * rows,
        end * rows);
    };
    const int64_t bytes = 2 * int64_t(sizeof(T)) * channels * inner;
    if (inner > 1)
      return parallel_over(outer * count, bytes / count, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) write(i % count, i / count, i / count + 1);
      });
    parallel_over(outer, bytes, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; p += kPixels)
        for (int64_t i = 0; i < count; i++) write(i, p, std::min(p + kPixels, end));
    });
  });
  return y;
}

}  // namespace
}  // namespace convlab

CONVLAB_REGISTER_CPU(m) {
  m.impl("batch_norm_folded", TORCH_BOX(&convlab::batch_norm_folded));
  m.impl("batch_norm_forward", TORCH_BOX(&convlab::batch_norm_forward));
  m.impl("batch_norm_joined", TORCH_BOX(&convlab::batch_norm_joined));
  m.impl("batch_norm_", TORCH_BOX(&convlab::batch_norm_));
}
