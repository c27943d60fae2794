// From the numbers a user gave to a Conv2d or a Pool2d, or an error that names the argument and the values. After this,
// no index of a kernel can leave its tensor, and every coordinate inside one [H, W] plane fits an int. Host only,
// torch-free.
#pragma once
#include <algorithm>
#include <climits>
#include <cstdint>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "geometry/conv2d.h"
#include "geometry/pool2d.h"

namespace convlab {

using Sizes = std::vector<int64_t>;

inline std::string text(const Sizes& sizes) {
  std::string out = "[";
  for (size_t i = 0; i < sizes.size(); i++) out += (i ? ", " : "") + std::to_string(sizes[i]);
  return out + "]";
}

template <class... Parts> std::string message(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

// Throws what torch.nn raises for arguments that do not fit together: RuntimeError.
#define CONVLAB_CHECK(condition, ...)                                            \
  do {                                                                           \
    if (!(condition)) throw std::runtime_error(::convlab::message(__VA_ARGS__)); \
  } while (0)

inline void check_numbers(const char* op, const char* name, const int64_t* first, int count, int64_t least,
                          int64_t most = INT_MAX) {
  for (int i = 0; i < count; i++)
    CONVLAB_CHECK(first[i] >= least && first[i] <= most, op, ": ", name, "=", text(Sizes(first, first + count)),
                  " must lie in [", least, ", 2^31)");
}

inline void check_list(const char* op, const char* name, const Sizes& values, size_t length, int64_t least) {
  CONVLAB_CHECK(values.size() == length, op, ": ", name, " has ", values.size(), " values, expected ", length, ": ",
                text(values));
  check_numbers(op, name, values.data(), int(values.size()), least);
}

inline void check_plane(const char* op, const char* name, int64_t height, int64_t width) {
  CONVLAB_CHECK(height * width <= INT_MAX, op, ": one plane of ", name, " has ", height, " x ", width,
                " elements, at most 2^31 - 1 are supported");
}

// A stride that goes beyond all of the padded input and of the kernel makes one output, as does the shortest such
// stride, which indices can hold.
inline int64_t shortest_stride(int64_t stride, int64_t padded, int64_t extent) {
  return std::min(stride, std::max(padded, extent));
}

inline void check_geometry(const char* op, const Sizes& geometry) {
  CONVLAB_CHECK(geometry.size() == 9, op, ": geometry has ", geometry.size(), " values, expected 9: ", text(geometry));
}

// x [N, C, H, W], w [K, C/groups, R, S]; geometry: stride (height, width), padding (top, left, bottom, right), dilation
// (height, width) and groups.
inline Conv2d make_conv2d(const char* op, const Sizes& x, const Sizes& w, const Sizes& geometry) {
  check_geometry(op, geometry);
  const int64_t *const stride = &geometry[0], *const padding = &geometry[2], *const dilation = &geometry[6],
                       groups = geometry[8];
  CONVLAB_CHECK(x.size() == 4, op, ": input must be [N, C, H, W], got ", text(x));
  CONVLAB_CHECK(w.size() == 4, op, ": weight must be [K, C/groups, R, S], got ", text(w));
  check_list(op, "input", x, 4, 0);
  check_list(op, "weight", w, 4, 0);
  check_numbers(op, "stride", stride, 2, 1, INT64_MAX);
  check_numbers(op, "padding", padding, 4, 0);
  check_numbers(op, "dilation", dilation, 2, 1);
  CONVLAB_CHECK(groups >= 1, op, ": groups=", groups, " must be at least 1");
  CONVLAB_CHECK(x[1] == w[1] * groups, op, ": input ", text(x), " has ", x[1], " channels, but weight ", text(w),
                " with groups=", groups, " expects ", w[1] * groups);
  CONVLAB_CHECK(w[0] >= groups && w[0] % groups == 0, op, ": weight ", text(w), " makes ", w[0],
                " channels, which groups=", groups, " does not divide");
  CONVLAB_CHECK(x[1] > 0 && (x[0] == 0 || (x[2] > 0 && x[3] > 0)), op, ": input ", text(x),
                " may be empty in the batch dimension only");

  Conv2d g{};
  int outputs[2], strides[2];
  for (int d = 0; d < 2; d++) {  // height, width
    const char* along = d ? "width" : "height";
    const int64_t padded = x[2 + d] + padding[d] + padding[2 + d], extent = dilation[d] * (w[2 + d] - 1) + 1;
    CONVLAB_CHECK(w[2 + d] >= 1, op, ": weight ", text(w), " has no taps along its ", along);
    strides[d] = int(shortest_stride(stride[d], padded, extent));
    CONVLAB_CHECK(padded + extent + strides[d] <= INT_MAX, op, ": ", along, " of the padded input (", padded,
                  "), of the kernel (", extent, " with dilation=", text({dilation[0], dilation[1]}), ") and stride (",
                  strides[d], ") must together stay below 2^31");
    CONVLAB_CHECK(extent <= padded, op, ": the kernel covers ", extent, " along the ", along, " (weight ", text(w),
                  ", dilation=", text({dilation[0], dilation[1]}), "), more than the padded input's ", padded,
                  " (input ", text(x), ", padding (top, left, bottom, right)=", text(Sizes(padding, padding + 4)), ")");
    outputs[d] = int(conv_outputs(x[2 + d], padding[d] + padding[2 + d], w[2 + d], strides[d], dilation[d]));
  }
  g.N = int(x[0]), g.C = int(x[1]), g.H = int(x[2]), g.W = int(x[3]);
  g.K = int(w[0]), g.R = int(w[2]), g.S = int(w[3]);
  g.P = outputs[0], g.Q = outputs[1];
  g.stride_h = strides[0], g.stride_w = strides[1];
  g.pad_h = int(padding[0]), g.pad_w = int(padding[1]);
  g.dilation_h = int(dilation[0]), g.dilation_w = int(dilation[1]);
  g.groups = int(groups);
  check_plane(op, "input", g.H, g.W);
  check_plane(op, "weight", g.R, g.S);
  check_plane(op, "output", g.P, g.Q);
  return g;
}

// x [N, C, H, W]; padding (height, width), the same on both sides.
inline Pool2d make_pool2d(const char* op, const Sizes& x, const Sizes& window, bool ceil_mode) {
  CONVLAB_CHECK(window.size() == 8, op, ": window has ", window.size(), " values, expected 8: ", text(window));
  const int64_t *const kernel_size = &window[0], *const stride = &window[2], *const padding = &window[4],
                       *const dilation = &window[6];
  const auto shown = [](const int64_t* both) { return text({both[0], both[1]}); };
  CONVLAB_CHECK(x.size() == 4, op, ": input must be [N, C, H, W], got ", text(x));
  check_list(op, "input", x, 4, 0);
  CONVLAB_CHECK(x[1] > 0 && x[2] > 0 && x[3] > 0, op, ": input ", text(x), " may be empty in the batch dimension only");
  check_numbers(op, "kernel_size", kernel_size, 2, 1);
  check_numbers(op, "stride", stride, 2, 1);
  check_numbers(op, "padding", padding, 2, 0);
  check_numbers(op, "dilation", dilation, 2, 1);

  Pool2d g{};
  int outputs[2], strides[2];
  for (int d = 0; d < 2; d++) {  // height, width
    const char* along = d ? "width" : "height";
    const int64_t extent = dilation[d] * (kernel_size[d] - 1) + 1, padded = x[2 + d] + 2 * padding[d];
    strides[d] = int(shortest_stride(stride[d], padded, extent));
    CONVLAB_CHECK(padded + extent + strides[d] <= INT_MAX, op, ": ", along, " of the padded input (", padded,
                  "), of the window (", extent, " with dilation=", shown(dilation), ") and stride (", strides[d],
                  ") must together stay below 2^31");
    CONVLAB_CHECK(2 * padding[d] <= kernel_size[d], op, ": padding=", shown(padding),
                  " may be at most half of kernel_size=", shown(kernel_size));
    const int64_t n = pool_outputs(x[2 + d], padding[d], kernel_size[d], strides[d], dilation[d], ceil_mode);
    CONVLAB_CHECK(n >= 1, op, ": the window covers ", extent, " along the ", along,
                  " (kernel_size=", shown(kernel_size), ", dilation=", shown(dilation),
                  "), more than the padded input's ", padded, " (input ", text(x), ", padding=", shown(padding), ")");
    outputs[d] = int(n);
  }
  g.planes = (long long)x[0] * x[1];
  g.H = int(x[2]), g.W = int(x[3]);
  g.P = outputs[0], g.Q = outputs[1];
  g.R = int(kernel_size[0]), g.S = int(kernel_size[1]);
  g.stride_h = strides[0], g.stride_w = strides[1];
  g.pad_h = int(padding[0]), g.pad_w = int(padding[1]);
  g.dilation_h = int(dilation[0]), g.dilation_w = int(dilation[1]);
  check_plane(op, "input", g.H, g.W);
  check_plane(op, "window", g.R, g.S);
  check_plane(op, "output", g.P, g.Q);
  return g;
}

}  // namespace convlab
