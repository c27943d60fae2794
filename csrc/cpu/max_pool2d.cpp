// Max pooling on the CPU, plane by plane. NaN beats everything, the first of equals wins.
#include "../host/max_pool2d.h"

#include <limits>

#include "../host/registration.h"
#include "parallel.h"

namespace convlab {
namespace {

struct Window {  // of one output element
  int h0, w0;    // where tap (0, 0) lies; may be outside x
  int r0, s0;    // the first tap that does not lie before x
};

inline int first_tap(int start, int dilation) { return start < 0 ? (-start + dilation - 1) / dilation : 0; }

inline Window window_of(const Pool2d& g, int p, int q) {
  const int h0 = p * g.stride_h - g.pad_h, w0 = q * g.stride_w - g.pad_w;
  return {h0, w0, first_tap(h0, g.dilation_h), first_tap(w0, g.dilation_w)};
}

// x [H, W] -> y [P, Q], offsets [P, Q] or null
template <class T, class Offset> void forward_plane(const Pool2d& g, const T* x, T* y, Offset* offsets) {
  for (int p = 0; p < g.P; p++)
    for (int q = 0; q < g.Q; q++) {
      const Window at = window_of(g, p, q);
      acc_t<T> best = -std::numeric_limits<acc_t<T>>::infinity();
      int winner = at.r0 * g.S + at.s0;  // also of a window of nothing but -inf
      for (int r = at.r0; r < g.R && at.h0 + r * g.dilation_h < g.H; r++)
        for (int s = at.s0; s < g.S && at.w0 + s * g.dilation_w < g.W; s++) {
          const acc_t<T> value(x[(at.h0 + r * g.dilation_h) * g.W + at.w0 + s * g.dilation_w]);
          if (value > best || value != value) {
            best = value;
            winner = r * g.S + s;
          }
        }
      y[p * g.Q + q] = T(best);
      if (offsets) offsets[p * g.Q + q] = Offset(winner);
    }
}

// Where the winner of window (p, q) lies in [H, W]; -1 when the window hangs over x altogether
template <class Offset> int winner_of(const Pool2d& g, const Offset* offsets, int p, int q) {
  const int offset = offsets[p * g.Q + q];
  const int h = p * g.stride_h - g.pad_h + offset / g.S * g.dilation_h, w = q * g.stride_w - g.pad_w + offset % g.S * g.dilation_w;
  return h >= 0 && h < g.H && w >= 0 && w < g.W ? h * g.W + w : -1;
}

// dy, offsets [P, Q] -> dx [H, W]; sums [H W]
template <class T, class Offset> void backward_plane(const Pool2d& g, const T* dy, const Offset* offsets, T* dx, std::vector<acc_t<T>>& sums) {
  std::fill(sums.begin(), sums.end(), acc_t<T>(0));
  for (int p = 0; p < g.P; p++)
    for (int q = 0; q < g.Q; q++)
      if (const int at = winner_of(g, offsets, p, q); at >= 0) sums[at] += acc_t<T>(dy[p * g.Q + q]);
  std::transform(sums.begin(), sums.end(), dx, [](acc_t<T> sum) { return T(sum); });
}

// x [H, W], offsets [P, Q] -> y [P, Q]
template <class T, class Offset> void gather_plane(const Pool2d& g, const T* x, const Offset* offsets, T* y) {
  for (int p = 0; p < g.P; p++)
    for (int q = 0; q < g.Q; q++) {
      const int at = winner_of(g, offsets, p, q);
      y[p * g.Q + q] = at >= 0 ? x[at] : T(0.0f);
    }
}

template <class F> void dispatch_offset(const Pool2d& g, F&& f) {
  if (offsets_fit_a_byte(g)) f(type_tag<uint8_t>{});
  else f(type_tag<int32_t>{});
}

struct Cpu {
  static constexpr bool any_layout = false;
  explicit Cpu(const Tensor&) {}

  template <class F> static void over_planes(const Pool2d& g, const F& f) {
    parallel_over(g.planes, (int64_t)g.P * g.Q * g.R * g.S, f);
  }

  void forward(const Pool2d& g, DType dtype, const void* x, void* y, void* offsets) const {
    dispatch(dtype, [&](auto tag) {
      dispatch_offset(g, [&](auto offset_tag) {
        using T = typename decltype(tag)::type;
        using Offset = typename decltype(offset_tag)::type;
        over_planes(g, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; i++)
            forward_plane(g, static_cast<const T*>(x) + i * g.H * g.W, static_cast<T*>(y) + i * g.P * g.Q,
                          offsets ? static_cast<Offset*>(offsets) + i * g.P * g.Q : nullptr);
        });
      });
    });
  }

  void backward(const Pool2d& g, DType dtype, const void* dy, const void* offsets, void* dx) const {
    dispatch(dtype, [&](auto tag) {
      dispatch_offset(g, [&](auto offset_tag) {
        using T = typename decltype(tag)::type;
        using Offset = typename decltype(offset_tag)::type;
        over_planes(g, [&](int64_t begin, int64_t end) {
          std::vector<acc_t<T>> sums((int64_t)g.H * g.W);
          for (int64_t i = begin; i < end; i++)
            backward_plane(g, static_cast<const T*>(dy) + i * g.P * g.Q, static_cast<const Offset*>(offsets) + i * g.P * g.Q,
                           static_cast<T*>(dx) + i * g.H * g.W, sums);
        });
      });
    });
  }

  void gather(const Pool2d& g, DType dtype, const void* x, const void* offsets, void* y) const {
    dispatch(dtype, [&](auto tag) {
      dispatch_offset(g, [&](auto offset_tag) {
        using T = typename decltype(tag)::type;
        using Offset = typename decltype(offset_tag)::type;
        over_planes(g, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; i++)
            gather_plane(g, static_cast<const T*>(x) + i * g.H * g.W, static_cast<const Offset*>(offsets) + i * g.P * g.Q,
                         static_cast<T*>(y) + i * g.P * g.Q);
        });
      });
    });
  }

  void indices(const Pool2d& g, const void* offsets, long long* out) const {
    dispatch_offset(g, [&](auto offset_tag) {
      using Offset = typename decltype(offset_tag)::type;
      over_planes(g, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin * g.P; i < end * g.P; i++)
          for (int q = 0; q < g.Q; q++) {
            const int offset = static_cast<const Offset*>(offsets)[i * g.Q + q];
            const int64_t h = i % g.P * g.stride_h - g.pad_h + (int64_t)(offset / g.S) * g.dilation_h;
            out[i * g.Q + q] = h * g.W + (int64_t)q * g.stride_w - g.pad_w + (int64_t)(offset % g.S) * g.dilation_w;
          }
      });
    });
  }
};

}  // namespace
}  // namespace convlab

CONVLAB_REGISTER_CPU(m) {
  m.impl("max_pool2d_forward", TORCH_BOX(&convlab::max_pool2d_forward<convlab::Cpu>));
  m.impl("max_pool2d_backward", TORCH_BOX(&convlab::max_pool2d_backward<convlab::Cpu>));
  m.impl("max_pool2d_gather", TORCH_BOX(&convlab::max_pool2d_gather<convlab::Cpu>));
  m.impl("max_pool2d_indices", TORCH_BOX(&convlab::max_pool2d_indices<convlab::Cpu>));
}
