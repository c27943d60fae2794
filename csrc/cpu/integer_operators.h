// Convolution and pooling of integers on the CPU, as plain loops: torch has them, and nobody waits for them. Sums wrap
// around, as torch's do. Tensors are contiguous here.
#pragma once
#include <limits>

#include "cpu/conv2d/reference/loops.h"
#include "geometry/ranges.h"
#include "host/avg_pool2d_operators.h"
#include "host/conv2d_operators.h"
#include "host/max_pool2d_operators.h"

namespace convlab::integers {

// Calls f with a null pointer of the element type; false where that is no integer that convlab has
template <class F> bool dispatch(ScalarType type, F&& f) {
  switch (type) {
    case ScalarType::Byte: return f(static_cast<uint8_t*>(nullptr)), true;
    case ScalarType::Char: return f(static_cast<int8_t*>(nullptr)), true;
    case ScalarType::Short: return f(static_cast<int16_t*>(nullptr)), true;
    case ScalarType::Int: return f(static_cast<int32_t*>(nullptr)), true;
    case ScalarType::Long: return f(static_cast<int64_t*>(nullptr)), true;
    default: return false;
  }
}

inline bool is_integer(const Tensor& t) {
  return dispatch(t.scalar_type(), [](auto) {});
}

template <class T> const T* elements(const Tensor& t) { return static_cast<const T*>(t.const_data_ptr()); }
template <class T> T* elements(Tensor& t) { return static_cast<T*>(t.mutable_data_ptr()); }

inline Tensor laid(Tensor t, bool channels_last) { return channels_last ? as_channels_last(t) : t; }

// x [N, C, H, W], w [K, C/groups, R, S], bias [K] -> y [N, K, P, Q]
inline Tensor conv2d_forward(const Tensor& x, const Tensor& w, const std::optional<Tensor>& bias,
                             const Sizes& geometry) {
  const char* op = "conv2d";
  same_type(op, {{"input", x}, {"weight", w}, {"bias", bias ? *bias : w}});
  const Conv2d g = make_conv2d(op, sizes_of(x), sizes_of(w), geometry);
  if (bias) check_sizes(op, {"bias", *bias}, {g.K});
  Tensor y = empty({g.N, g.K, g.P, g.Q}, x.scalar_type(), x);
  const Tensor xc = torch::stable::contiguous(x), wc = torch::stable::contiguous(w),
               bc = bias ? torch::stable::contiguous(*bias) : wc;
  const Problem p{.pass = Pass::forward, .dtype = {}, .g = g};
  dispatch(x.scalar_type(), [&](auto tag) {
    using T = std::remove_pointer_t<decltype(tag)>;  // sums are unsigned, because they may overflow
    reference::forward<T, uint64_t>(g, x_strides(p), filters_of(p), y_strides(p), elements<T>(xc), elements<T>(wc),
                                    bias ? elements<T>(bc) : nullptr, elements<T>(y));
  });
  return laid(y, is_channels_last(x) || is_channels_last(w));
}

// Calls f(h, w, tap) for what window (p, q) has inside x
template <class F> void each_tap(const Pool2d& g, int p, int q, const F& f) {
  const int h0 = p * g.stride_h - g.pad_h, w0 = q * g.stride_w - g.pad_w;
  const Range rows = places_inside(g.R, g.H, g.dilation_h, h0), columns = places_inside(g.S, g.W, g.dilation_w, w0);
  for (int r = rows.begin; r < rows.end; r++)
    for (int s = columns.begin; s < columns.end; s++)
      f(int64_t(h0 + r * g.dilation_h) * g.W + w0 + s * g.dilation_w, r * g.S + s);
}

// x [N, C, H, W] -> y [N, C, P, Q], and offsets [N, C, P, Q], or [0] unless with_offsets
inline std::tuple<Tensor, Tensor> max_pool2d_forward(const Tensor& x, const Sizes& window, bool ceil_mode,
                                                     bool with_offsets) {
  const Pool2d g = make_pool2d("max_pool2d", sizes_of(x), window, ceil_mode);
  const Sizes outputs{x.size(0), x.size(1), g.P, g.Q};
  Tensor y = empty(outputs, x.scalar_type(), x), offsets = empty(with_offsets ? outputs : Sizes{0}, offset_type(g), x);
  const Tensor xc = torch::stable::contiguous(x);
  dispatch(x.scalar_type(), [&](auto tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    for (int64_t i = 0; i < y.numel(); i++) {
      const int p = int(i / g.Q % g.P), q = int(i % g.Q);
      const T* const plane = elements<T>(xc) + i / g.Q / g.P * g.H * g.W;
      T best = std::numeric_limits<T>::lowest();
      int winner = -1;
      each_tap(g, p, q, [&](int64_t at, int tap) {
        if (winner < 0 || plane[at] > best) best = plane[at], winner = tap;
      });
      elements<T>(y)[i] = best;
      if (!with_offsets) continue;
      if (offsets_fit_a_byte(g)) elements<uint8_t>(offsets)[i] = uint8_t(std::max(winner, 0));
      else elements<int32_t>(offsets)[i] = std::max(winner, 0);
    }
  });
  const bool channels_last = is_channels_last(x);
  return {laid(y, channels_last), laid(offsets, channels_last && with_offsets)};
}

// x [N, C, H, W] int64 -> y [N, C, P, Q]: averages rounded towards zero
inline Tensor avg_pool2d_forward(const Tensor& x, const Sizes& window, bool ceil_mode, bool count_include_pad,
                                 int64_t divisor) {
  const char* op = "avg_pool2d";
  const AvgPool2d a = make_avg_pool2d(op, make_pool2d(op, sizes_of(x), window, ceil_mode), count_include_pad, divisor);
  const Pool2d& g = a.window;
  Tensor y = empty({x.size(0), x.size(1), g.P, g.Q}, x.scalar_type(), x);
  const Tensor xc = torch::stable::contiguous(x);
  for (int64_t i = 0; i < y.numel(); i++) {
    const int p = int(i / g.Q % g.P), q = int(i % g.Q);
    const int64_t* const plane = elements<int64_t>(xc) + i / g.Q / g.P * g.H * g.W;
    uint64_t sum = 0;
    each_tap(g, p, q, [&](int64_t at, int) { sum += uint64_t(plane[at]); });
    const int64_t by = averaged_over(a, p, q);
    elements<int64_t>(y)[i] =
        by == -1 ? int64_t(0 - sum) : int64_t(sum) / by;  // the least int64 has no negative: it would be a trap
  }
  return laid(y, is_channels_last(x));
}

}  // namespace convlab::integers
