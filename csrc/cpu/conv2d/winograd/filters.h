// Filters -> U [points, depth, panel], a panel of target channels and a block of source channels at a time; and in wgrad
// the way back.
#pragma once
#include "cpu/conv2d/ahead.h"
#include "cpu/conv2d/winograd/tiles.h"

namespace convlab::CONVLAB_ISA::winograd {

constexpr int kAllTaps = kTaps * kTaps;

// How the taps of a block of target channels and `depth` source channels lie with target channels innermost, as they came
// or once they are transposed: tap t of channel c at taps + t * tap + c * channel
struct TapStrides {
  int64_t tap, channel;
};

CONVLAB_INLINE TapStrides tap_strides(const Filters& f, int depth) {
  const bool taps_innermost = f.tap == 1;
  return taps_innermost ? TapStrides{kBlock, kAllTaps * kBlock} : TapStrides{int64_t(depth) * kBlock, kBlock};
}

// The filters of `lanes` target channels from w on, for `depth` source channels
inline TapStrides transpose_taps(const Filters& f, const float* w, int lanes, int depth, float* taps) {
  const TapStrides strides = tap_strides(f, depth);
  if (f.lane == 1) {  // [taps, depth, lanes] or [depth, taps, lanes]
    for (int t = 0; t < kAllTaps; t++)
      for (int c = 0; c < depth; c++)
        for (int v = 0; v < vectors_of(lanes); v++)
          store<float>(taps + t * strides.tap + c * strides.channel + v * kWidth,
                       load_some<float>(w + t * f.tap + c * f.depth_stride + v * kWidth, lanes - v * kWidth));
  } else if (f.tap == 1 && f.depth_stride == kAllTaps) {  // [lanes, depth, taps]
    transpose_in(w, f.lane, lanes, depth * kAllTaps, taps, kBlock);
  } else if (f.tap == 1) {  // [depth, lanes, taps]
    for (int c = 0; c < depth; c++)
      transpose_in(w + c * f.depth_stride, f.lane, lanes, kAllTaps, taps + c * strides.channel, kBlock);
  } else {  // [lanes, taps, depth]
    for (int t = 0; t < kAllTaps; t++)
      transpose_in(w + t * f.tap, f.lane, lanes, depth, taps + t * strides.tap, kBlock);
  }
  return strides;
}

// A vector of target channels' filters for `depth` source channels, channels innermost -> U from `to` on
template <int m>
void points_of_filters(const float* taps, const TapStrides& strides, bool turned, int depth, float* to,
                       int64_t stride) {
  for (int c = 0; c < depth; c++, taps += strides.channel, to += kPanel) {
    Floats lines[kTaps][m + 2];
#pragma GCC unroll 3
    for (int s = 0; s < kTaps; s++) {
      Floats g[kTaps];
#pragma GCC unroll 3
      for (int r = 0; r < kTaps; r++) {
        const int tap = r * kTaps + s;
        g[r] = load<float>(taps + (turned ? kAllTaps - 1 - tap : tap) * strides.tap);
      }
      transform_filter<m, m, kTaps>(g, lines[s]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < m + 2; i++) {
      const Floats g[kTaps] = {lines[0][i], lines[1][i], lines[2][i]};
      Floats t[m + 2];
      transform_filter<m, m, kTaps>(g, t);
#pragma GCC unroll 8
      for (int j = 0; j < m + 2; j++) store<float>(to + (i * (m + 2) + j) * stride, t[j]);
    }
  }
  for (int i = 0; i < (m + 2) * (m + 2) && depth % 2; i++) store<float>(to + i * stride, Floats{});
}

// Where a panel's filters for source channels from c on begin
CONVLAB_INLINE const float* filters_at(const Tiling& p, const float* w, int group, int panel, int c) {
  return w + group * p.filters.group + panel * kPanel * p.filters.lane + c * p.filters.depth_stride;
}

// Filters of a panel and of `depth` source channels, where they are runs of target channels far from one another, as in
// dgrad: others lie in an order that the hardware foresees
inline void look_ahead(const Tiling& p, const float* w, int panel, int depth, int shares, Ahead& ahead) {
  const Filters& f = p.filters;
  const int64_t lanes = least(p.width - panel * kPanel, kPanel), size = sizeof(float);
  if (f.lane == 1) ahead.share(w, lanes * size, shares, depth * kAllTaps, f.tap * size);
  else if (f.lane < f.depth_stride) ahead.share(w, lanes * kAllTaps * size, shares, depth, f.depth_stride * size);
}

// Filters of a panel of a group, for source channels [c0, c1) -> U [points, c1 - c0 and a row of zeros if odd, panel]
template <int m>
void transform_filters(const Tiling& p, const float* w, int group, int panel, int c0, int c1, float* taps,
                       const Stack& filters) {
  const Filters& f = p.filters;
  w = filters_at(p, w, group, panel, c0);
  for (int k = panel * kPanel; k < least((panel + 1) * kPanel, p.width); k += kBlock) {
    const int lanes = least(p.width - k, kBlock);
    const float* const from = w + k % kPanel * f.lane;
    const bool in_place = f.lane == 1 && lanes == kBlock;
    const TapStrides strides =
        in_place ? TapStrides{f.tap, f.depth_stride} : transpose_taps(f, from, lanes, c1 - c0, taps);
    for (int v = 0; v < vectors_of(lanes); v++)
      points_of_filters<m>((in_place ? from : taps) + v * kWidth, strides, p.turned, c1 - c0,
                           filters.at + k % kPanel + v * kWidth, filters.stride);
  }
}

}  // namespace convlab::CONVLAB_ISA::winograd
