// Batch normalization in training and the activation behind it: forward in two passes over memory, or one where a
// channel of the batch stays in a cache, and as many in backward.
#include "cpu/norm/batch_norm_train.h"

#include <cmath>

#include "cpu/norm/parameters.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"
#include "cpu/workspace.h"
#include "host/conv2d_block_operators.h"
#include "host/prelu_operators.h"
#include "host/registration.h"

namespace convlab {
namespace {

constexpr int64_t kSliceBytes = 64 << 10, kLeastPixels = 8;  // of a slice of pixels, all channels side by side
constexpr int64_t kRunBytes = 4 << 10, kLeastRun = 256;      // of an image's channels that a thread has at once
constexpr int64_t kBlocksWanted = 16;                        // of channels, for threads
constexpr int64_t kSmallPlane = 16;                          // elements
constexpr int64_t kImages = 256;                             // of small planes in a slice

// How x, which is dense, is cut. Channels side by side: into pixels. Planes: a thread has some channels of all images at
// once, and sums are of one image. Small planes: each of a plane's places counts as a channel, so that vectors are whole,
// and `places` of them are one.
struct Slices {
  ByChannel g;  // places count as channels
  int64_t size, channels, places;  // size: bytes of an element; channels: of x
  int64_t outer, count;  // of a slice; slices
  int64_t at_once;  // channels, where there are planes
  bool planes;

  Slices(const Tensor& x, int64_t bytes) : size(bytes), channels(x.size(1)) {
    g = channels == 1 ? ByChannel{x.size(0), 1, x.numel() / x.size(0)} : by_dimension(x, 1);
    const int64_t plane = g.inner * size;
    planes = g.inner > 1;
    places = planes && g.inner <= kSmallPlane ? g.inner : 1;
    if (places > 1) g = {g.outer, channels * places, 1};
    outer = g.inner > 1 ? 1 : planes ? kImages : std::max(kSliceBytes / (channels * size), kLeastPixels);
    outer = std::min<int64_t>(outer, g.outer);
    count = (g.outer + outer - 1) / outer;
    const int64_t most = std::max<int64_t>(kRunBytes / plane, 1), least = (kLeastRun + plane - 1) / plane;
    at_once = std::min({most, std::max(least, channels / kBlocksWanted), channels});
  }
  int64_t elements() const { return g.outer * g.inner; }  // of one of g's channels
  double elements(int64_t slice) const { return double((end(slice) - slice * outer) * g.inner); }
  Slice of(int64_t slice, int64_t channel0, int64_t channel1) const {
    return {slice * outer, end(slice), channel0 * places, channel1 * places};
  }
  // A channel's value, for all its places
  template <class A> void put(A* of_all, int64_t channel, A value) const {
    std::fill_n(of_all + channel * places, places, value);
  }
  // f(i, j, k) for each slice i and each place j of a few channels; k: the index of their sums in Work
  template <class F> void each_sum(int64_t channel, int some, const F& f) const {
    for (int64_t i = 0; i < count; i++)
      for (int64_t j = 0, k = i * g.channels + channel * places; j < some * places; j++, k++) f(i, j, k);
  }

  // add(slice's number, Slice) for all slices, then finish(channels [begin, end)), then write(Slice), beginning with
  // what was read last and may still be in a cache
  template <class Add, class Finish, class Write>
  void each(const Add& add, const Finish& finish, const Write& write) const {
    const auto add_some = [&](int64_t begin, int64_t end, int64_t c0, int64_t c1) {
      for (int64_t i = begin; i < end; i++) add(i, of(i, c0, c1));
    };
    const auto write_some = [&](int64_t begin, int64_t end, int64_t c0, int64_t c1) {
      for (int64_t i = end; i > begin; i--) write(of(i - 1, c0, c1));
    };
    if (planes) {
      const int64_t blocks = (channels + at_once - 1) / at_once;
      return parallel_over(blocks, 3 * elements() * places * at_once * size, [&](int64_t begin, int64_t end) {
        for (int64_t c = begin * at_once; c < std::min(end * at_once, channels); c += at_once) {
          const int64_t last = std::min(c + at_once, channels);
          add_some(0, count, c, last), finish(c, last), write_some(0, count, c, last);
        }
      });
    }
    const int64_t work = outer * channels * size;
    parallel_over(count, work, [&](int64_t begin, int64_t end) { add_some(begin, end, 0, channels); });
    parallel_over(channels, 2 * count * size, finish);
    parallel_over(count, 2 * work, [&](int64_t begin, int64_t end) { write_some(begin, end, 0, channels); });
  }

 private:
  int64_t end(int64_t slice) const { return std::min<int64_t>(g.outer, (slice + 1) * outer); }
};

// Of each of Slices' channels, g's: what kernels take, and what they make of each slice
template <class A> struct Work {
  A *mean, *scale, *shift, *by, *plus, *first, *second, *third;

  template <class Memory> Work(Memory& memory, const Slices& s) {
    for (A** of : {&mean, &scale, &shift, &by, &plus}) memory.take(*of, int64_t(s.g.channels));
    for (A** of : {&first, &second, &third}) memory.take(*of, s.count * s.g.channels);
  }
};

// The rows of what backward needs of each channel
template <class A> struct Rows {
  A *mean, *rstd, *scale, *shift;
  Rows(A* terms, int64_t channels)
      : mean(terms), rstd(terms + channels), scale(terms + 2 * channels), shift(terms + 3 * channels) {}
};

// f(Work)
template <class F> void with_work(DType dtype, const Slices& slices, const F& f) {
  const CpuScratch memory(CpuScratch::shared, measured<Work>(dtype, slices));
  Carver carver{memory.get()};
  if (dtype == DType::float64) f(Work<double>(carver, slices));
  else f(Work<float>(carver, slices));
}

// f(first, count) for channels [begin, end), of which a few, that lie side by side, are added up at once
constexpr int kSome = 64;
template <class F> void some_channels(const Slices& s, int64_t begin, int64_t end, const F& f) {
  const int64_t step = kSome / s.places;
  for (int64_t c = begin; c < end; c += step) f(c, int(std::min(step, end - c)));
}

// A running statistic goes `momentum` of the way to the batch's
template <class A> void follow(A* running, int64_t c, double batch, double momentum) {
  if (running) running[c] = A(momentum * batch + (1 - momentum) * double(running[c]));
}

DType checked_type(const char* op, const Tensor& x) {
  const DType dtype = dtype_of(op, {"input", x});
  CONVLAB_CHECK(is_sum_type(dtype), op, ": input is ", name_of(x.scalar_type()), ", expected float32 or float64");
  return dtype;
}

// x -> y and terms; running_mean and running_var follow the batch's
std::tuple<Tensor, Tensor> forward(Tensor x, Optional gamma, Optional beta, Optional running_mean, Optional running_var,
                                   double momentum, double eps, int64_t activation, double slope) {
  const char* op = "batch_norm";
  const DType dtype = checked_type(op, x);
  CONVLAB_CHECK(x.dim() >= 2 && x.numel() > x.size(1), op, ": input is ", text(sizes_of(x)),
                ", expected two or more values for each channel, of which there are statistics");
  Parameters of{running_mean, running_var, gamma, beta, {}};
  of.check(op, {"input", x}, x.size(1));
  const Ending e = make_ending(op, {activation, 1, 1}, slope);
  const Tensor xd = dense(x);
  Tensor y = output_like(xd), terms = empty({4, x.size(1)}, x.scalar_type(), x);
  const Slices s(xd, bytes_of(dtype));
  with_work(dtype, s, [&]<class A>(const Work<A>& work) {
    const int64_t G = s.g.channels;
    const Rows<A> rows(out_data<A>(terms), s.channels);
    const A *const gamma = data<A>(of.gamma), *const beta = data<A>(of.beta);
    A *const means = out_data<A>(of.mean), *const vars = out_data<A>(of.var);
    const double of_place = double(s.elements()), all = of_place * double(s.places);
    const auto finish = [&](int64_t begin, int64_t end) {
      some_channels(s, begin, end, [&](int64_t channel, int some) {
        double mean[kSome] = {}, squares[kSome] = {};
        s.each_sum(channel, some, [&](int64_t i, int64_t j, int64_t k) {
          mean[j] += (double(work.first[k]) + double(work.second[k])) * (s.elements(i) / of_place);
        });
        s.each_sum(channel, some, [&](int64_t i, int64_t j, int64_t k) {
          const double apart = double(work.first[k]) + double(work.second[k]) - mean[j];
          squares[j] += double(work.third[k]) + apart * apart * s.elements(i);
        });
        for (int64_t c = channel; c < channel + some; c++) {
          const int64_t place = (c - channel) * s.places;
          double m = 0, square = 0;
          for (int64_t j = place; j < place + s.places; j++) m += mean[j] / double(s.places);
          for (int64_t j = place; j < place + s.places; j++)
            square += squares[j] + (mean[j] - m) * (mean[j] - m) * of_place;
          square = square < 0 ? 0 : square;  // what rounding left of equal elements
          rows.mean[c] = A(m), rows.rstd[c] = A(1 / std::sqrt(square / all + eps));
          rows.scale[c] = (gamma ? A(gamma[c]) : A(1)) * rows.rstd[c];
          rows.shift[c] = (beta ? A(beta[c]) : A(0)) - rows.mean[c] * rows.scale[c];
          s.put(work.scale, c, rows.scale[c]), s.put(work.shift, c, rows.shift[c]);
          follow(means, c, m, momentum), follow(vars, c, square / (all - 1), momentum);
        }
      });
    };
    s.each(
        [&, f = kernels::batch_statistics.of(dtype)](int64_t i, const Slice& slice) {
          f(s.g, slice, xd.const_data_ptr(), work.first + i * G, work.second + i * G, work.third + i * G);
        },
        finish,
        [&, f = kernels::normalize.of(dtype)](const Slice& slice) {
          const int64_t c = slice.channel0, some = slice.channel1 - c, rows = s.g.inner == 1 ? 1 : some;
          f({{s.g.outer, some, s.g.inner}, e.activation, slope, G, G}, work.scale + c, work.shift + c,
            data<A>(xd) + c * s.g.inner, out_data<A>(y) + c * s.g.inner, slice.outer0 * rows, slice.outer1 * rows);
        });
  });
  if (of.mean) write_back(*running_mean, *of.mean);
  if (of.var) write_back(*running_var, *of.var);
  return {y, terms};
}

// dy, of y's shape -> dx, dgamma, dbeta
std::tuple<Tensor, Tensor, Tensor> backward(Tensor dy, Tensor x, Tensor terms, int64_t activation, double slope) {
  const char* op = "batch_norm_backward";
  const DType dtype = checked_type(op, x);
  same_type(op, {{"input", x}, {"grad_output", dy}, {"terms", terms}});
  CONVLAB_CHECK(x.dim() >= 2 && x.numel() > 0, op, ": input is ", text(sizes_of(x)), ", expected some of a channel");
  check_sizes(op, {"grad_output", dy}, sizes_of(x));
  check_sizes(op, {"terms", terms}, {4, x.size(1)});
  const Ending e = make_ending(op, {activation, 1, 1}, slope);
  const Tensor xd = dense(x), dyd = in_order_of(xd, dy), td = torch::stable::contiguous(terms);
  Tensor dx = output_like(xd), dgamma = empty({x.size(1)}, x.scalar_type(), x),
         dbeta = empty({x.size(1)}, x.scalar_type(), x);
  const Slices s(xd, bytes_of(dtype));
  const Normalization n{s.g, e.activation, slope};
  with_work(dtype, s, [&]<class A>(const Work<A>& work) {
    const int64_t G = s.g.channels;
    const Rows<const A> rows(data<A>(td), s.channels);
    A *const dgammas = out_data<A>(dgamma), *const dbetas = out_data<A>(dbeta);
    const double all = double(s.elements() * s.places);
    for (int64_t c = 0; c < s.channels; c++)
      s.put(work.mean, c, rows.mean[c]), s.put(work.scale, c, rows.scale[c]), s.put(work.shift, c, rows.shift[c]);
    const auto finish = [&](int64_t begin, int64_t end) {
      some_channels(s, begin, end, [&](int64_t channel, int some) {
        double sums[kSome] = {}, products[kSome] = {};
        s.each_sum(channel, some, [&](int64_t, int64_t j, int64_t k) {
          sums[j] += double(work.first[k]), products[j] += double(work.second[k]);
        });
        for (int64_t c = channel; c < channel + some; c++) {
          const int64_t place = (c - channel) * s.places;
          double sum = 0, product = 0;
          for (int64_t j = place; j < place + s.places; j++) sum += sums[j], product += products[j];
          const double rstd = double(rows.rstd[c]), scale = double(rows.scale[c]);
          dgammas[c] = A(product * rstd), dbetas[c] = A(sum);
          s.put(work.by, c, A(-scale * rstd * rstd * product / all)), s.put(work.plus, c, A(-scale * sum / all));
        }
      });
    };
    s.each(
        [&, f = kernels::batch_norm_grad_sums.of(dtype)](int64_t i, const Slice& slice) {
          f(n, slice, work.scale, work.shift, work.mean, dyd.const_data_ptr(), xd.const_data_ptr(), work.first + i * G,
            work.second + i * G);
        },
        finish,
        [&, f = kernels::batch_norm_dgrad.of(dtype)](const Slice& slice) {
          f(n, slice, work.scale, work.shift, work.mean, work.by, work.plus, dyd.const_data_ptr(), xd.const_data_ptr(),
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
