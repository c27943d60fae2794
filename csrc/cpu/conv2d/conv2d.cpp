// Convolution on the CPU: the operators.
#include "host/conv2d_operators.h"

#include "cpu/conv2d/bias_grad.h"
#include "cpu/conv2d/block/block.h"
#include "cpu/conv2d/cpu_rung.h"
#include "cpu/integer_operators.h"
#include "cpu/parallel.h"
#include "host/conv2d_block_operators.h"
#include "host/registration.h"

namespace convlab {
namespace {

struct Cpu {
  using Rung = CpuRung;
  static constexpr bool takes_channels_last = true;
  static int multiprocessors(const Tensor&) { return kMultiprocessors; }  // which no rung of the CPU asks for,
  static int capability(const Tensor&) { return kCapability; }            // nor this
  explicit Cpu(const Tensor&) {}

  void forward(const Chosen<CpuRung>& c, const Problem& p, const void* x, const void* w, const void* bias,
               void* y) const {
    c.rung->run(c.plan, p, {.first = x, .second = w, .bias = bias, .output = y});
  }
  void dgrad(const Chosen<CpuRung>& c, const Problem& p, const void* dy, const void* w, void* dx,
             const void* bias = nullptr) const {
    c.rung->run(c.plan, p, {.first = dy, .second = w, .bias = bias, .output = dx});
  }
  void wgrad(const Chosen<CpuRung>& c, const Problem& p, const void* dy, const void* x, void* dw, void* db) const {
    if (db) bias_grad(p, dy, db);
    c.rung->run(c.plan, p, {.first = dy, .second = x, .bias = nullptr, .output = dw});
  }

  void bias_grad(const Problem& p, const void* dy, void* db) const { convlab::bias_grad(p, dy, db); }

  static bool activates(const Chosen<CpuRung>& c, const Ending& e, bool with_winners) {
    return c.plan.activates && !e.pools() && !with_winners;
  }
  bool finishes(const Chosen<CpuRung>& c, const Ending& e, const Problem& p, bool with_winners) const {
    return activates(c, e, with_winners) || c.plan.finishes(e, p.g.P);
  }
  void forward(const Chosen<CpuRung>& c, const Problem& p, const Ending& e, const Pool2d& g, int64_t channels,
               const void* x, const void* w, const void* bias, void* y, void* winners) const {
    if (activates(c, e, winners))
      return c.rung->run(c.plan, p, {.first = x, .second = w, .bias = bias, .output = y, .ending = e});
    const Finish finish{.ending = e,
                        .P = g.P,
                        .Q = g.Q,
                        .to = strides_of(p.g.K, g.P, g.Q, channels > 1),
                        .y = y,
                        .winners = static_cast<uint8_t*>(winners)};
    c.rung->run(c.plan, p, {.first = x, .second = w, .bias = bias, .output = nullptr, .finish = &finish});
  }
  void finish(const Ending& e, const Pool2d& g, int64_t channels, DType dtype, const void* x, void* y,
              void* winners) const {
    const BlockEnd b{e, g, channels};
    over_windows(b, [&, f = kernels::block_finish.of(dtype)](int64_t begin, int64_t end) {
      f(b, x, y, static_cast<uint8_t*>(winners), begin, end);
    });
  }
  void spread(const Ending& e, const Pool2d& g, int64_t channels, DType dtype, const void* dy, const void* winners,
              void* dx) const {
    const BlockEnd b{e, g, channels};
    over_windows(b, [&, f = kernels::block_spread.of(dtype)](int64_t begin, int64_t end) {
      f(b, dy, static_cast<const uint8_t*>(winners), dx, begin, end);
    });
  }

 private:
  // Calls f(begin, end) over the rows of windows
  template <class F> static void over_windows(const BlockEnd& b, const F& f) {
    const int64_t rows = b.rows();
    parallel_over(rows, b.g.planes * b.g.H * b.g.W / rows, f);
  }
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
  m.impl("conv2d_backward", TORCH_BOX(&convlab::conv2d_backward<convlab::Cpu>));
  m.impl("conv2d_bias_grad", TORCH_BOX(&convlab::conv2d_bias_grad<convlab::Cpu>));
  m.impl("conv2d_block_forward", TORCH_BOX(&convlab::conv2d_block_forward<convlab::Cpu>));
  m.impl("conv2d_block_backward", TORCH_BOX(&convlab::conv2d_block_backward<convlab::Cpu>));
}
