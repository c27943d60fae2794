// How threads walk over a depthwise convolution, in both layouts.
#pragma once
#include "kernels/conv2d_depthwise_plan.h"

namespace convlab {

constexpr int kDepthwiseBlocksAtOnce = 4;  // a multiprocessor: leaves a thread 128 registers

// A pass as seen by its planes: `in` [images, in_maps, in_h, in_w] becomes `out` [images, out_maps, out_h, out_w],
// whose first row sees the input from row -pad_h on. An output map is the sum of `sources` input maps; `shared_by` have
// the same ones.
struct DepthwisePlanes {
  int images, in_maps, in_h, in_w, out_maps, out_h, out_w, pad_h, pad_w;
  int sources, shared_by;
  bool flipped;  // the filter
};

// Where a run lies: piece i of the planes [images, height, width] of a map.
struct DepthwisePlace {
  int image, row, column;
};
template <int kRows, int kColumns>
__device__ __forceinline__ DepthwisePlace place_of(unsigned i, int height, int width) {
  const unsigned across = unsigned(width + kColumns - 1) / kColumns,
                 pieces = unsigned(height + kRows - 1) / kRows * across;
  const unsigned image = i / pieces, piece = i - image * pieces, down = piece / across;
  return {int(image), int(down) * kRows, int(piece - down * across) * kColumns};
}
template <int kRows, int kColumns>
__device__ __forceinline__ bool exists(unsigned i, int images, int height, int width) {
  return i < unsigned(images) * (unsigned(height + kRows - 1) / kRows * (unsigned(width + kColumns - 1) / kColumns));
}

// Maps [images, maps, pixels] as they lie: NCHW, where a block has one map, or channels_last, where it has kAcross side
// by side.
template <int kAcross> struct DepthwiseMaps {
  static constexpr bool channels_last = kAcross > 1;
  int maps, pixels;
  __device__ __forceinline__ long long first(int image, int map) const {
    return channels_last ? (long long)image * pixels * maps + map : ((long long)image * maps + map) * pixels;
  }
  __device__ __forceinline__ long long at(int pixel) const { return channels_last ? (long long)pixel * maps : pixel; }
  __device__ __forceinline__ int next_map() const { return channels_last ? 1 : pixels; }
};

// The window of a run of rows x columns: load(row, h) fills each of its rows once, and f(tap, a, b, value) is called for
// every tap of every position (a, b) of the run.
template <class Value, int kFilter, int kStride, int kRows, int kColumns, class Load, class F>
__device__ __forceinline__ void over_window(const Load& load, const F& f) {
  constexpr int kWindowRows = (kRows - 1) * kStride + kFilter, kWindowColumns = (kColumns - 1) * kStride + kFilter;
#pragma unroll
  for (int h = 0; h < kWindowRows; h++) {
    Value row[kWindowColumns];
    load(row, h);
#pragma unroll
    for (int r = 0; r < kFilter; r++) {
      if (h < r || (h - r) % kStride || (h - r) / kStride >= kRows) continue;
#pragma unroll
      for (int s = 0; s < kFilter; s++)
#pragma unroll
        for (int b = 0; b < kColumns; b++) f(r * kFilter + s, (h - r) / kStride, b, row[b * kStride + s]);
    }
  }
}

}  // namespace convlab
