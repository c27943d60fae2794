// Average pooling on the CPU, plane by plane.
#include "../host/avg_pool2d.h"

#include "../host/registration.h"
#include "parallel.h"

namespace convlab {
namespace {

// x [H, W] -> y [P, Q]
template <class T> void forward_plane(const AvgPool2d& a, const T* x, T* y) {
  const Pool2d& g = a.window;
  for (int p = 0; p < g.P; p++) {
    const Range rows = covered_by(p, g.stride_h, g.pad_h, g.R, g.H);
    for (int q = 0; q < g.Q; q++) {
      const Range columns = covered_by(q, g.stride_w, g.pad_w, g.S, g.W);
      acc_t<T> sum = 0;
      for (int h = rows.begin; h < rows.end; h++)
        for (int w = columns.begin; w < columns.end; w++) sum += acc_t<T>(x[h * g.W + w]);
      y[p * g.Q + q] = T(sum / acc_t<T>(averaged_over(a, p, q)));
    }
  }
}

// dy [P, Q] -> dx [H, W]; sums [H W]
template <class T> void backward_plane(const AvgPool2d& a, const T* dy, T* dx, std::vector<acc_t<T>>& sums) {
  const Pool2d& g = a.window;
  std::fill(sums.begin(), sums.end(), acc_t<T>(0));
  for (int p = 0; p < g.P; p++) {
    const Range rows = covered_by(p, g.stride_h, g.pad_h, g.R, g.H);
    for (int q = 0; q < g.Q; q++) {
      const Range columns = covered_by(q, g.stride_w, g.pad_w, g.S, g.W);
      const acc_t<T> share = acc_t<T>(dy[p * g.Q + q]) / acc_t<T>(averaged_over(a, p, q));
      for (int h = rows.begin; h < rows.end; h++)
        for (int w = columns.begin; w < columns.end; w++) sums[h * g.W + w] += share;
    }
  }
  std::transform(sums.begin(), sums.end(), dx, [](acc_t<T> sum) { return T(sum); });
}

struct Cpu {
  static constexpr bool any_layout = false;
  explicit Cpu(const Tensor&) {}

  template <class F> static void over_planes(const Pool2d& g, const F& f) { parallel_over(g.planes, (int64_t)g.P * g.Q * g.R * g.S, f); }

  void forward(const AvgPool2d& a, DType dtype, const void* x, void* y) const {
    dispatch(dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      const Pool2d& g = a.window;
      over_planes(g, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) forward_plane(a, static_cast<const T*>(x) + i * g.H * g.W, static_cast<T*>(y) + i * g.P * g.Q);
      });
    });
  }

  void backward(const AvgPool2d& a, DType dtype, const void* dy, void* dx) const {
    dispatch(dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      const Pool2d& g = a.window;
      over_planes(g, [&](int64_t begin, int64_t end) {
        std::vector<acc_t<T>> sums(size_t(g.H) * g.W);
        for (int64_t i = begin; i < end; i++) backward_plane(a, static_cast<const T*>(dy) + i * g.P * g.Q, static_cast<T*>(dx) + i * g.H * g.W, sums);
      });
    });
  }
};

}  // namespace
}  // namespace convlab

CONVLAB_REGISTER_CPU(m) {
  m.impl("avg_pool2d_forward", TORCH_BOX(&convlab::avg_pool2d_forward<convlab::Cpu>));
  m.impl("avg_pool2d_backward", TORCH_BOX(&convlab::avg_pool2d_backward<convlab::Cpu>));
}
