// Average pooling on the CPU: the operators, and what windows are divided by.
#include "host/avg_pool2d_operators.h"

#include <algorithm>
#include <functional>

#include "cpu/integer_operators.h"
#include "cpu/pool2d/pooling_plan.h"
#include "host/registration.h"

namespace convlab {
namespace {

using pooling::Pass;
using pooling::Plan;

// averaged_over() as a product: what a pooling of one row, or of one column, has
class Factors {
 public:
  explicit Factors(const AvgPool2d& a) {
    AvgPool2d rows = a, columns = a;
    rows.window.W = rows.window.Q = rows.window.S = rows.window.stride_w = 1, rows.window.pad_w = 0;
    columns.window.H = columns.window.P = columns.window.R = columns.window.stride_h = 1, columns.window.pad_h = 0;
    for (int p = 0; p < a.window.P; p++) rows_.push_back(double(averaged_over(rows, p, 0)));
    for (int q = 0; q < a.window.Q; q++) columns_.push_back(a.divisor ? 1.0 : double(averaged_over(columns, 0, q)));
  }
  Averages view(bool turned) const {
    int exponent;
    const auto power = [&](double d) { return std::abs(std::frexp(d, &exponent)) == 0.5; };
    const bool powers =
        std::all_of(rows_.begin(), rows_.end(), power) && std::all_of(columns_.begin(), columns_.end(), power);
    const auto same = [](const std::vector<double>& v) {
      return std::adjacent_find(v.begin(), v.end(), std::not_equal_to<>()) == v.end();
    };
    const auto &rows = turned ? columns_ : rows_, &columns = turned ? rows_ : columns_;
    return {rows.data(), columns.data(), powers, same(rows) && same(columns)};
  }

 private:
  std::vector<double> rows_, columns_;
};

struct Cpu {
  static constexpr bool takes_channels_last = true;
  const int64_t channels;  // of a position where the tensors lie channels_last, else 1
  explicit Cpu(const Tensor& output) : channels(is_channels_last(output) ? output.size(1) : 1) {}

  void forward(const AvgPool2d& a, DType dtype, const void* x, void* y) const {
    run(Pass::forward, a, dtype, kernels::average_forward.of(dtype), x, y);
  }
  void backward(const AvgPool2d& a, DType dtype, const void* dy, void* dx) const {
    run(Pass::backward, a, dtype, kernels::average_backward.of(dtype), dy, dx);
  }

 private:
  template <class F> void run(Pass pass, const AvgPool2d& a, DType dtype, F* f, const void* from, void* to) const {
    const Factors factors(a);
    const Plan plan(pass, a.window, channels, dtype);
    const Averages averages = factors.view(plan.turned());
    plan.run([&](const Pooling& p, int64_t begin, int64_t end, char* scratch) {
      f(p, averages, from, to, begin, end, scratch);
    });
  }
};

Tensor forward(Tensor x, Sizes kernel_size, Sizes stride, Sizes padding, bool ceil_mode, bool count_include_pad,
               int64_t divisor) {
  if (x.scalar_type() == ScalarType::Long)
    return integers::avg_pool2d_forward(x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor);
  return avg_pool2d_forward<Cpu>(std::move(x), std::move(kernel_size), std::move(stride), std::move(padding), ceil_mode,
                                 count_include_pad, divisor);
}

}  // namespace
}  // namespace convlab

CONVLAB_REGISTER_CPU(m) {
  m.impl("avg_pool2d_forward", TORCH_BOX(&convlab::forward));
  m.impl("avg_pool2d_backward", TORCH_BOX(&convlab::avg_pool2d_backward<convlab::Cpu>));
}
