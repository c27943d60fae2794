// Convolution on the CPU: the algorithms by number, spread over threads.
#include "../host/conv2d.h"

#include "conv2d_direct.h"
#include "conv2d_reference.h"
#include "../host/registration.h"
#include "parallel.h"

namespace convlab {
namespace {

struct Cpu {
  static constexpr Backend id = Backend::cpu;
  explicit Cpu(const Tensor&) {}

  void forward(Algorithm algorithm, const Conv2d& g, DType dtype, const void* x, const void* w, const void* bias, void* y) const {
    dispatch(dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      const T *xt = static_cast<const T*>(x), *wt = static_cast<const T*>(w), *bt = static_cast<const T*>(bias);
      T* yt = static_cast<T*>(y);
      if (algorithm == Algorithm::reference) return reference::forward(g, xt, wt, bt, yt);
      const auto packed = direct::pack_for_forward(g, wt);
      parallel_over((int64_t)g.N * g.P, (int64_t)g.K * g.Cg() * g.R * g.S * g.Q,
                    [&](int64_t begin, int64_t end) { direct::forward(g, xt, packed.data(), bt, yt, begin, end); });
    });
  }

  void dgrad(Algorithm algorithm, const Conv2d& g, DType dtype, const void* dy, const void* w, void* dx) const {
    dispatch(dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      const T *dyt = static_cast<const T*>(dy), *wt = static_cast<const T*>(w);
      T* dxt = static_cast<T*>(dx);
      if (algorithm == Algorithm::reference) return reference::dgrad(g, dyt, wt, dxt);
      const auto packed = direct::pack_for_dgrad(g, wt);
      parallel_over((int64_t)g.N * g.H, (int64_t)g.C * g.Kg() * g.R * g.S * g.W,
                    [&](int64_t begin, int64_t end) { direct::dgrad(g, dyt, packed.data(), dxt, begin, end); });
    });
  }

  void wgrad(Algorithm algorithm, const Conv2d& g, DType dtype, const void* dy, const void* x, void* dw, void* db) const {
    if (db) bias_grad(g, dtype, dy, db);
    dispatch(dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      const T *dyt = static_cast<const T*>(dy), *xt = static_cast<const T*>(x);
      T* dwt = static_cast<T*>(dw);
      if (algorithm == Algorithm::reference) return reference::wgrad(g, dyt, xt, dwt);
      const auto packed = direct::pack_for_wgrad(g, dyt);
      parallel_over((int64_t)g.C * g.R * g.S, (int64_t)g.N * g.Kg() * g.P * g.Q,
                    [&](int64_t begin, int64_t end) { direct::wgrad(g, packed.data(), xt, dwt, begin, end); });
    });
  }

  void bias_grad(const Conv2d& g, DType dtype, const void* dy, void* db) const {
    dispatch(dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      const T* dyt = static_cast<const T*>(dy);
      T* dbt = static_cast<T*>(db);
      parallel_over(g.K, (int64_t)g.N * g.P * g.Q, [&](int64_t begin, int64_t end) { direct::bias_grad(g, dyt, dbt, begin, end); });
    });
  }
};

}  // namespace
}  // namespace convlab

CONVLAB_REGISTER_CPU(m) {
  m.impl("conv2d_forward", TORCH_BOX(&convlab::conv2d_forward<convlab::Cpu>));
  m.impl("conv2d_dgrad", TORCH_BOX(&convlab::conv2d_dgrad<convlab::Cpu>));
  m.impl("conv2d_wgrad", TORCH_BOX(&convlab::conv2d_wgrad<convlab::Cpu>));
  m.impl("conv2d_bias_grad", TORCH_BOX(&convlab::conv2d_bias_grad<convlab::Cpu>));
}
