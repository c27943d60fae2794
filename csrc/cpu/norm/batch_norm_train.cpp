// Batch normalization in training and the activation behind it: forward in two passes over memory, or one where a
// channel of the batch stays in a cache, and as many in backward.
#include "cpu/norm/batch_norm_train.h"

#include <cmath>

#include "cpu/parallel.h"
#include "cpu/scratch.h"
#include "cpu/workspace.h"
#include "host/conv2d_block_operators.h"
#include "host/prelu_operators.h"
#include "host/registration.h"

namespace convlab {
namespace {

using Optional = std::optional<Tensor>;

constexpr int64_t kSliceBytes = 64 << 10;  // of pixels with their channels side by side
constexpr int64_t kRunBytes = 4 << 10;     // of an image's channels that a thread has at once

// How x, which is dense, is cut: into pixels with their channels side by side, or images, of which a thread has some
// channels at once.
struct Slices {
  ByChannel g;
  int64_t size, outer, count, channels;  // outer: of a slice; channels: at once

  Slices(const Tensor& x, int64_t bytes) : size(bytes) {
    g = x.size(1) == 1 ? ByChannel{x.size(0), 1, x.numel() / x.size(0)} : by_dimension(x, 1);
    const bool apart = g.inner == 1;
    outer = apart ? std::clamp<int64_t>(kSliceBytes / (g.channels * size), 1, g.outer) : 1;
    count = (g.outer + outer - 1) / outer;
    channels = apart ? g.channels : std::clamp<int64_t>(kRunBytes / (g.inner * size), 1, g.channels);
  }
  int64_t elements() const { return g.outer * g.inner; }  // of a channel
  int64_t elements(int64_t slice) const {
    return (std::min<int64_t>(g.outer, (slice + 1) * outer) - slice * outer) * g.inner;
  }
  Slice of(int64_t slice, int64_t channel0, int64_t channel1) const {
    return {slice * outer, std::min<int64_t>(g.outer, (slice + 1) * outer), channel0, channel1};
  }

  // add(slice's number, Slice) for all slices, then finish(channels [begin, end)), then write(Slice), beginning with
  // what was read last and may still be in a cache
  template <class Add, class Finish, class Write>
  void each(const Add& add, const Finish& finish, const Write& write) const {
    const auto some = [&](int64_t begin, int64_t end, int64_t c0, int64_t c1, bool writes) {
      for (int64_t i = begin; i < end && !writes; i++) add(i, of(i, c0, c1));
      for (int64_t i = end; i > begin && writes; i--) write(of(i - 1, c0, c1));
    };
    if (g.inner > 1) {
      const int64_t blocks = (g.channels + channels - 1) / channels;
      return parallel_over(blocks, 3 * elements() * channels * size, [&](int64_t begin, int64_t end) {
        for (int64_t c = begin * channels; c < std::min<int64_t>(end * channels, g.channels); c += channels) {
          const int64_t last = std::min<int64_t>(c + channels, g.channels);
          some(0, count, c, last, false), finish(c, last), some(0, count, c, last, true);
        }
      });
    }
    const int64_t work = outer * g.channels * size;
    parallel_over(count, work, [&](int64_t begin, int64_t end) { some(begin, end, 0, g.channels, false); });
    parallel_over(g.channels, 2 * count * size, finish);
    parallel_over(count, 2 * work, [&](int64_t begin, int64_t end) { some(begin, end, 0, g.channels, true); });
  }
};

// Of each channel: what kernels take, and two sums for each slice
template <class A> struct Sums {
  A *scale, *shift, *by, *plus, *first, *second;
  int64_t channels;

  template <class Memory> Sums(Memory& memory, const Slices& s) : channels(s.g.channels) {
    for (A** of : {&scale, &shift, &by, &plus}) memory.take(*of, channels);
    for (A** of : {&first, &second}) memory.take(*of, s.count * channels);
  }
};

// f(first, count) for channels [begin, end), of which a few are added up at once: they lie side by side
constexpr int kSome = 64;
template <class F> void some_channels(int64_t begin, int64_t end, const F& f) {
  for (int64_t c = begin; c < end; c += kSome) f(c, int(std::min<int64_t>(kSome, end - c)));
}

template <class T> const T* data(const Tensor& t) { return static_cast<const T*>(t.const_data_ptr()); }
template <class T> const T* data(const Optional& t) { return t ? data<T>(*t) : nullptr; }
template <class T> T* out_data(Tensor& t) { return static_cast<T*>(t.mutable_data_ptr()); }
template <class T> T* out_data(Optional& t) { return t ? out_data<T>(*t) : nullptr; }

void check_channels(const char* op, const Tensor& x, std::initializer_list<std::pair<const char*, Optional*>> all) {
  for (const auto& [name, t] : all) {
    if (!*t) continue;
    common_dtype(op, {{"input", x}, {name, **t}});
    check_sizes(op, {name, **t}, {x.size(1)});
  }
}

Tensor of_sums(const Tensor& x) {
  const bool is_double = x.scalar_type() == ScalarType::Double;
  return empty({x.size(1)}, is_double ? ScalarType::Double : ScalarType::Float, x);
}

// Of what f does with a type T and with Sums of its sums, in memory of the calling thread
template <class F> void with_sums(DType dtype, const Slices& slices, const F& f) {
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const CpuScratch memory(CpuScratch::shared, measured<Sums>(dtype, slices));
    Carver carver{memory.get()};
    f(tag, Sums<acc_t<T>>(carver, slices));
  });
}

// The channel's mean and standard deviation -> scale and shift
template <class T, class A>
void set_terms(const Sums<A>& sums, int64_t c, A mean, A rstd, const T* gamma, const T* beta) {
  sums.scale[c] = (gamma ? A(gamma[c]) : A(1)) * rstd;
  sums.shift[c] = (beta ? A(beta[c]) : A(0)) - mean * sums.scale[c];
}

// A running statistic goes `momentum` of the way to the batch's
template <class T> void follow(T& running, double batch, double momentum) {
  using A = acc_t<T>;
  running = T(A(momentum * batch + (1 - momentum) * double(A(running))));
}

// x -> y, and mean and 1 / sqrt(var + eps) [C] of the batch, which the running ones follow
std::tuple<Tensor, Tensor, Tensor> forward(Tensor x, Optional gamma, Optional beta, Optional running_mean,
                                           Optional running_var, double momentum, double eps, int64_t activation,
                                           double slope) {
  const char* op = "batch_norm";
  const DType dtype = dtype_of(op, {"input", x});
  CONVLAB_CHECK(x.dim() >= 2 && x.numel() > x.size(1), op, ": input is ", text(sizes_of(x)),
                ", expected two or more values for each channel, of which there are statistics");
  check_channels(op, x,
                 {{"weight", &gamma}, {"bias", &beta}, {"running_mean", &running_mean}, {"running_var", &running_var}});
  const Ending e = make_ending(op, {activation, 1, 1}, slope);
  const auto contiguous = [](const Optional& t) { return t ? Optional(torch::stable::contiguous(*t)) : t; };
  const Optional gammas = contiguous(gamma), betas = contiguous(beta);
  Optional means = contiguous(running_mean), vars = contiguous(running_var);
  const Tensor xd = dense(x);
  Tensor y = output_like(xd), mean = of_sums(x), rstd = of_sums(x);
  const Slices slices(xd, bytes_of(dtype));
  const Normalization n{slices.g, e.activation, slope};
  with_sums(dtype, slices, [&](auto tag, const auto& sums) {
    using T = typename decltype(tag)::type;
    using A = acc_t<T>;
    const int64_t C = slices.g.channels;
    const T *const gamma = data<T>(gammas), *const beta = data<T>(betas);
    T *const old_mean = out_data<T>(means), *const old_var = out_data<T>(vars);
    A *const mean_of = out_data<A>(mean), *const rstd_of = out_data<A>(rstd);
    const double count = double(slices.elements());
    slices.each(
        [&, f = kernels::batch_statistics.of(dtype)](int64_t i, const Slice& s) {
          f(slices.g, s, xd.const_data_ptr(), sums.first + i * C, sums.second + i * C);
        },
        [&](int64_t begin, int64_t end) {
          some_channels(begin, end, [&](int64_t first, int some) {
            double means[kSome] = {}, squares[kSome] = {};
            for (int64_t i = 0; i < slices.count; i++)
              for (int c = 0; c < some; c++)
                means[c] += double(sums.first[i * C + first + c]) * double(slices.elements(i)) / count;
            for (int64_t i = 0; i < slices.count; i++)
              for (int c = 0; c < some; c++) {
                const double apart = double(sums.first[i * C + first + c]) - means[c];
                squares[c] += double(sums.second[i * C + first + c]) + apart * apart * double(slices.elements(i));
              }
            for (int i = 0; i < some; i++) {
              const int64_t c = first + i;
              const double mean = means[i] + double(A(data<T>(xd)[c * slices.g.inner]));
              mean_of[c] = A(mean), rstd_of[c] = A(1 / std::sqrt(squares[i] / count + eps));
              set_terms(sums, c, mean_of[c], rstd_of[c], gamma, beta);
              if (old_mean) follow(old_mean[c], mean, momentum);
              if (old_var) follow(old_var[c], squares[i] / (count - 1), momentum);
            }
          });
        },
        [&, f = kernels::normalize.of(dtype)](const Slice& s) {
          const bool apart = n.g.inner == 1;
          f(n, sums.scale, sums.shift, xd.const_data_ptr(), y.mutable_data_ptr(),
            apart ? s.outer0 : s.outer0 * C + s.channel0, apart ? s.outer1 : s.outer0 * C + s.channel1);
        });
  });
  if (means) write_back(*running_mean, *means);
  if (vars) write_back(*running_var, *vars);
  return {y, mean, rstd};
}

// dy, of y's shape -> dx, dgamma, dbeta
std::tuple<Tensor, Tensor, Tensor> backward(Tensor dy, Tensor x, Optional gamma, Optional beta, Tensor mean,
                                            Tensor rstd, int64_t activation, double slope) {
  const char* op = "batch_norm_backward";
  const DType dtype = common_dtype(op, {{"input", x}, {"grad_output", dy}});
  CONVLAB_CHECK(x.dim() >= 2 && x.numel() > 0, op, ": input is ", text(sizes_of(x)), ", expected some of a channel");
  check_sizes(op, {"grad_output", dy}, sizes_of(x));
  check_channels(op, x, {{"weight", &gamma}, {"bias", &beta}});
  same_type(op, {{"mean", mean}, {"rstd", rstd}, {"mean", of_sums(x)}});
  for (const Named& t : {Named{"mean", mean}, Named{"rstd", rstd}}) check_sizes(op, t, {x.size(1)});
  const Ending e = make_ending(op, {activation, 1, 1}, slope);
  const auto contiguous = [](const Optional& t) { return t ? Optional(torch::stable::contiguous(*t)) : t; };
  const Optional gammas = contiguous(gamma), betas = contiguous(beta);
  const Tensor xd = dense(x), dyd = in_order_of(xd, dy), means = torch::stable::contiguous(mean),
               rstds = torch::stable::contiguous(rstd);
  Tensor dx = output_like(xd), dgamma = empty({x.size(1)}, x.scalar_type(), x),
         dbeta = empty({x.size(1)}, x.scalar_type(), x);
  const Slices slices(xd, bytes_of(dtype));
  const Normalization n{slices.g, e.activation, slope};
  with_sums(dtype, slices, [&](auto tag, const auto& sums) {
    using T = typename decltype(tag)::type;
    using A = acc_t<T>;
    const int64_t C = slices.g.channels;
    const T *const gamma = data<T>(gammas), *const beta = data<T>(betas);
    const A *const mean_of = data<A>(means), *const rstd_of = data<A>(rstds);
    T *const dgamma_of = out_data<T>(dgamma), *const dbeta_of = out_data<T>(dbeta);
    const double count = double(slices.elements());
    for (int64_t c = 0; c < C; c++) set_terms(sums, c, mean_of[c], rstd_of[c], gamma, beta);
    slices.each(
        [&, f = kernels::batch_norm_grad_sums.of(dtype)](int64_t i, const Slice& s) {
          f(n, s, sums.scale, sums.shift, mean_of, dyd.const_data_ptr(), xd.const_data_ptr(), sums.first + i * C,
            sums.second + i * C);
        },
        [&](int64_t begin, int64_t end) {
          some_channels(begin, end, [&](int64_t first, int some) {
            double sum[kSome] = {}, product[kSome] = {};
            for (int64_t i = 0; i < slices.count; i++)
              for (int c = 0; c < some; c++) {
                sum[c] += double(sums.first[i * C + first + c]);
                product[c] += double(sums.second[i * C + first + c]);
              }
            for (int i = 0; i < some; i++) {
              const int64_t c = first + i;
              const double rstd = double(rstd_of[c]), scale = double(sums.scale[c]);
              dgamma_of[c] = T(A(product[i] * rstd)), dbeta_of[c] = T(A(sum[i]));
              sums.by[c] = A(-scale * rstd * rstd * product[i] / count), sums.plus[c] = A(-scale * sum[i] / count);
            }
          });
        },
        [&, f = kernels::batch_norm_dgrad.of(dtype)](const Slice& s) {
          f(n, s, sums.scale, sums.shift, mean_of, sums.by, sums.plus, dyd.const_data_ptr(), xd.const_data_ptr(),
            dx.mutable_data_ptr());
        });
  });
  return {dx, dgamma, dbeta};
}

}  // namespace
}  // namespace convlab

CONVLAB_REGISTER_CPU(m) {
  m.impl("batch_norm_train", TORCH_BOX(&convlab::forward));
  m.impl("batch_norm_train_backward", TORCH_BOX(&convlab::backward));
}
