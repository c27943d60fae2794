// A single output by the definition, for those that came out not finite: a value that is not finite spreads over its
// tile, and large ones overflow on the way through the points. So NaN and infinity stay where they belong.
#pragma once
#include "cpu/conv2d/winograd/tiles.h"

namespace convlab::CONVLAB_ISA::winograd {

CONVLAB_INLINE bool finite(float a) { return a - a == 0; }

// Target channel k of a group at (row, column) of an image
inline float sum_of_taps(const Tiling& p, const float* source, const float* w, float bias, int64_t image, int group,
                         int k, int row, int column) {
  const Filters& f = p.filters;
  float sum = bias;
  for (int c = 0; c < p.depth; c++)
    for (int t = 0; t < kTaps * kTaps; t++) {
      const int h = row - p.top + t / kTaps, v = column - p.left + t % kTaps;
      if (h < 0 || h >= p.source_rows || v < 0 || v >= p.source_columns) continue;
      sum +=
          source[image * p.source.n + (int64_t(group) * p.depth + c) * p.source.c + h * p.source.h + v * p.source.w] *
          w[group * f.group + k * f.lane + c * f.depth_stride + (p.turned ? kTaps * kTaps - 1 - t : t) * f.tap];
      if (sum != sum) return sum;  // and stays so
    }
  return sum;
}

// Those of a segment's outputs that are not finite, for `lanes` channels from k on; target: from the segment's first on
inline void define_outputs(const Tiling& p, const Segment& s, const float* source, const float* w, const float* bias,
                           int group, int k, int lanes, float* target, const Strides& strides) {
  for (int l = k; l < k + lanes; l++)
    for (int row = s.row0 * p.m; row < least(s.row1 * p.m, p.target_rows); row++)
      for (int column = 0; column < p.target_columns; column++) {
        const int64_t channel = int64_t(group) * p.width + l;
        float& y = target[(l - k) * strides.c + (row - s.row0 * p.m) * strides.h + column * strides.w];
        if (!finite(y)) y = sum_of_taps(p, source, w, bias ? bias[channel] : 0, s.image, group, l, row, column);
      }
}

// Tap t of the filter of channels k and c of a group in wgrad
inline float sum_of_pixels(const Tiling& p, const float* x, const float* dy, int group, int k, int c, int t) {
  float sum = 0;
  for (int64_t n = 0; n < p.images; n++)
    for (int row = 0; row < p.target_rows; row++)
      for (int column = 0; column < p.target_columns; column++) {
        const int h = row - p.top + t / kTaps, v = column - p.left + t % kTaps;
        if (h < 0 || h >= p.source_rows || v < 0 || v >= p.source_columns) continue;
        sum +=
            x[n * p.source.n + (int64_t(group) * p.depth + c) * p.source.c + h * p.source.h + v * p.source.w] *
            dy[n * p.target.n + (int64_t(group) * p.width + k) * p.target.c + row * p.target.h + column * p.target.w];
        if (sum != sum) return sum;
      }
  return sum;
}

// Those of the filters of target channels [k0, k1) of a group that are not finite
inline void define_filters(const Tiling& p, const float* x, const float* dy, int group, int k0, int k1, float* dw) {
  const Filters& f = p.filters;
  for (int k = k0; k < k1; k++)
    for (int c = 0; c < p.depth; c++)
      for (int t = 0; t < kTaps * kTaps; t++) {
        float& sum = dw[group * f.group + k * f.lane + c * f.depth_stride + t * f.tap];
        if (!finite(sum)) sum = sum_of_pixels(p, x, dy, group, k, c, t);
      }
}

}  // namespace convlab::CONVLAB_ISA::winograd
