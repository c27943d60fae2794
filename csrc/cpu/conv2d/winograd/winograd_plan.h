// `winograd_2x2` and `winograd_4x4` up to their kernels: how a pass is cut into strips, parts and slices, and when it is
// best.
//
// Strips and parts are for caches and threads alone: no output's bits depend on them, so an image alone has the bits
// that it has in its batch. A slice's sums do, and slices follow from the shape, not from the threads.
#pragma once
#include <algorithm>
#include <string>

#include "cpu/conv2d/tap_tables.h"
#include "cpu/conv2d/winograd/winograd.h"

namespace convlab::winograd {

constexpr int64_t kStripBytes = 384 << 10;  // of V, in an L2 of 512 KB or 1 MB; 256 to 640 KB are about as good
constexpr int64_t kFilterBytes = 4 << 20;  // transformed; more are not kept, but made anew for every strip,
constexpr int kLongStrips = 8, kLongWgradStrips = 4;  // which are longer for it: V then comes from L3
constexpr int kLeastTiles = 28, kLeastWgradTiles = 64;  // of a strip
constexpr int kDepthBlock = 128;  // channels: transformed filters of a block stay in L2
constexpr int64_t kPiecesWanted = 16;  // to share among threads
constexpr int64_t kSlices = 4;  // of wgrad's strips: each has its sums transformed
constexpr int64_t kSliceBytes = 4 << 20;  // of all slices' sums together

inline bool can(const Problem& p) {
  const Conv2d& g = p.g;
  return p.dtype == DType::float32 && g.R == kTaps && g.S == kTaps && g.stride_h == 1 && g.stride_w == 1 &&
         g.dilation_h == 1 && g.dilation_w == 1;
}

inline std::string why_not(const Problem& p) {
  const Conv2d& g = p.g;
  const auto both = [](int a, int b) { return std::to_string(a) + " x " + std::to_string(b); };
  if (p.dtype != DType::float32) return "computes float32 alone: other types gain nothing from fewer multiplications";
  if (g.R != kTaps || g.S != kTaps) return "takes filters of 3 x 3, and these are " + both(g.R, g.S);
  if (g.stride_h != 1 || g.stride_w != 1) return "takes stride 1, and this has stride " + both(g.stride_h, g.stride_w);
  return "takes dilation 1, and this has dilation " + both(g.dilation_h, g.dilation_w);
}

// When "auto" takes it, whatever the batch: where the products save more than the transformations cost, which go with
// the sum of the channels. Measured against register_tiled and direct with AVX2, on some 180 layers; with AVX-512 in a
// prototype alone, whose vectors of 16 are the fewest channels that it tried.
constexpr int kFewChannels = 8;  // of source or target, a group; at least a vector
constexpr int kChannels2x2 = 40;  // of both together
constexpr int kSource2x2 = 16;  // products of fewer are short beside what they add to
constexpr int kSmallPlane = 4, kSmallWgradPlane = 5;  // rows or columns of the target

template <int m> bool best(const Problem& p) {
  const Conv2d& g = p.g;
  if (m == 4 ? !is_coarse(p.rounding) : p.rounding == Rounding::exact) return false;
  const bool dgrad = p.pass == Pass::dgrad, wgrad = p.pass == Pass::wgrad;
  const int source = dgrad ? g.Kg() : g.Cg(), few = std::max(kFewChannels, instruction_set().lanes(DType::float32));
  if (m == 2 && (g.Cg() + g.Kg() < kChannels2x2 || (!wgrad && source < kSource2x2))) return false;
  return std::min(g.Cg(), g.Kg()) >= few &&
         std::min(dgrad ? g.H : g.P, dgrad ? g.W : g.Q) >= (wgrad ? kSmallWgradPlane : kSmallPlane);
}

template <int m> Tiling tiling_of(const Problem& p) {
  const Conv2d& g = p.g;
  Tiling t{};
  t.m = m, t.images = g.N, t.groups = g.groups, t.filters = filters_of(p);
  t.panel = instruction_set().lanes(DType::float32) * instruction_set().tile_vectors, t.block = block_of(t.panel);
  t.depth = t.filters.depth, t.width = t.filters.width;
  t.source = x_strides(p), t.source_rows = g.H, t.source_columns = g.W, t.top = g.pad_h, t.left = g.pad_w;
  t.target = y_strides(p), t.target_rows = g.P, t.target_columns = g.Q;
  if (p.pass == Pass::dgrad) {
    std::swap(t.source, t.target), std::swap(t.source_rows, t.target_rows);
    std::swap(t.source_columns, t.target_columns);
    t.turned = true, t.top = kTaps - 1 - g.pad_h, t.left = kTaps - 1 - g.pad_w;
  }

  const bool wgrad = p.pass == Pass::wgrad;
  const auto positive = [](int64_t n) { return std::max<int64_t>(1, n); };  // there are problems of nothing
  const int64_t channel = positive(t.points() * int64_t(sizeof(float)) * t.depth);
  const bool large = channel * t.width * (wgrad ? 1 : t.groups) > kFilterBytes;
  const int64_t bytes = kStripBytes * (!large ? 1 : wgrad ? kLongWgradStrips : kLongStrips);
  const int64_t tiles = std::max<int64_t>(bytes / channel, wgrad ? kLeastWgradTiles : kLeastTiles);
  const int64_t rows = positive(int64_t(t.images) * t.tile_rows()),
                strip_rows = std::clamp<int64_t>(tiles / positive(t.tile_columns()), 1, rows);
  t.strips = int((rows + strip_rows - 1) / strip_rows);
  const int64_t slices = kSliceBytes / positive(t.filter_elements() * int64_t(sizeof(float)));
  t.slices = wgrad ? int(std::clamp<int64_t>(std::min<int64_t>(t.strips, slices), 1, kSlices)) : 1;
  t.kept = !large && t.strips > t.slices;
  t.depth_block = t.kept && !wgrad ? t.depth : std::min(t.depth, kDepthBlock);
  const int64_t panels = positive(t.panels()), pieces = (wgrad ? t.slices : t.strips) * int64_t(t.groups),
                parts = std::clamp<int64_t>(kPiecesWanted / pieces, 1, panels);
  t.panels_per_part = int((panels + parts - 1) / parts);
  return t;
}

// What all threads share: the transformed filters, or wgrad's slices
template <class Memory> float* lay_out_shared(Memory& memory, const Tiling& t, bool wgrad) {
  const int64_t filters = t.kept ? int64_t(t.groups) * t.panels() * t.points() * t.filter_stride() : 0,
                slices = t.slices > 1 ? t.slices * t.filter_elements() : 0;
  float* shared;
  memory.take(shared, wgrad ? slices : filters);
  return shared;
}

template <int m> CpuPlan plan(const Problem& p) {
  const auto tiling = std::make_shared<const Tiling>(tiling_of<m>(p));
  const Tiling& t = *tiling;
  const bool wgrad = p.pass == Pass::wgrad;
  const int64_t strip_rows = t.strip_rows();
  return {.images_per_strip = int(std::max<int64_t>(1, strip_rows / std::max(1, t.tile_rows()))),
          .rows_per_strip = int(std::min<int64_t>(strip_rows * m, t.target_rows)),
          .pieces = int64_t(wgrad ? t.slices : t.strips) * t.groups * std::max(1, t.parts()),
          .slices = t.slices,
          .workspace = measured([&](Measure& memory) { lay_out_shared(memory, t, wgrad); }),
          .scratch = measured([&](Measure& memory) { lay_out(memory, t, wgrad); }),
          .tables = tiling,
          .epilogue = Epilogue::windows,
          .strip_step = m};
}

inline CpuRung rung_2x2{.can = can, .why_not = why_not, .plan = plan<2>, .best = best<2>};
inline CpuRung rung_4x4{.can = can, .why_not = why_not, .plan = plan<4>, .best = best<4>};

}  // namespace convlab::winograd
