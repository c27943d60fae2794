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

// An average pooling's pass, planned: what windows are divided by is a product, as if of a pooling of one row and one of
// one column
struct Planned {
  std::vector<double> rows, columns;
  Plan plan;
  Averages averages;

  Planned(Pass pass, const AvgPool2d& a, int64_t channels, DType dtype) : plan(pass, a.window, channels, dtype) {
    AvgPool2d one_column = a, one_row = a;
    one_column.window.W = one_column.window.Q = one_column.window.S = one_column.window.stride_w = 1;
    one_row.window.H = one_row.window.P = one_row.window.R = one_row.window.stride_h = 1;
    one_column.window.pad_w = one_row.window.pad_h = 0;
    for (int p = 0; p < a.window.P; p++) rows.push_back(double(averaged_over(one_column, p, 0)));
    for (int q = 0; q < a.window.Q; q++) columns.push_back(a.divisor ? 1.0 : double(averaged_over(one_row, 0, q)));
    if (plan.turned()) std::swap(rows, columns);
    averages = {rows.data(), columns.data(), powers(rows) && powers(columns), same(rows) && same(columns)};
  }

 private:
  static bool powers(const std::vector<double>& v) {
    int exponent;
    return std::all_of(v.begin(), v.end(), [&](double d) { return std::abs(std::frexp(d, &exponent)) == 0.5; });
  }
  static bool same(const std::vector<double>& v) {
    return std::adjacent_find(v.begin(), v.end(), std::not_equal_to<>()) == v.end();
  }
};

struct Cpu {
  static constexpr bool takes_channels_last = true;
  const int64_t channels;  // of a position where the tensors lie channels_last, else 1
  explicit Cpu(const Tensor& output) : channels(is_channels_last(output) ? output.size(1) : 1) {}

  void forward(const AvgPool2d& a, DType dtype, const void* x, void* y) const {
    run(Pass::forward, a, dtype, kernels::average_forward.of(dtype), x, y);
  }
  void backward(const AvgPool2d& a, DType dtype, const void* dy, void* dx) const {
    run(Pass::share, a, dtype, kernels::average_backward.of(dtype), dy, dx);
  }

 private:
  template <class F> void run(Pass pass, const AvgPool2d& a, DType dtype, F* f, const void* from, void* to) const {
    std::array<int64_t, 15> numbers{};
    std::ranges::copy(pooling::numbers(a.window), numbers.begin());
    numbers[13] = a.count_include_pad, numbers[14] = a.divisor;
    const auto planned =
        pooling::planned(pass, numbers, channels, dtype, [&] { return Planned(pass, a, channels, dtype); });
    planned->plan.run([&](const Pooling& p, int64_t begin, int64_t end, char* scratch) {
      f(p, planned->averages, from, to, begin, end, scratch);
    });
  }
};

Tensor forward(Tensor x, Sizes window, bool ceil_mode, bool count_include_pad, int64_t divisor) {
  if (x.scalar_type() == ScalarType::Long)
    return integers::avg_pool2d_forward(x, window, ceil_mode, count_include_pad, divisor);
  return avg_pool2d_forward<Cpu>(std::move(x), std::move(window), ceil_mode, count_include_pad, divisor);
}

}  // namespace
}  // namespace convlab

CONVLAB_REGISTER_CPU(m) {
  m.impl("avg_pool2d_forward", TORCH_BOX(&convlab::forward));
  m.impl("avg_pool2d_backward", TORCH_BOX(&convlab::avg_pool2d_backward<convlab::Cpu>));
}
