// The warpgroup rung's wgrad as data: its tiles, and how its sum is cut into slices.
#pragma once
#include "kernels/conv2d_tensor_core_plan.h"

namespace convlab {

// As WarpgroupTileShape. time: by counting what passes shared memory, 128 bytes a clock cycle, at 1.75 GHz, and by what
// forward's tiles take beyond that.
struct WgradTileShape {
  int M, N, depth, pending, blocks;
  TensorTime time;
  bool splits = false;  // of strict float32 (3xTF32)
  constexpr int threads() const { return M * 2; }
};

constexpr WgradTileShape kWgradTiles[] = {
    {128, 256, 4, 1, 1, {500, 0.0120}},      {128, 192, 5, 1, 1, {500, 0.0099}},
    {128, 128, 3, 0, 2, {413, 0.0142}},      {64, 192, 3, 0, 2, {413, 0.0122}},
    {64, 64, 4, 1, 3, {406, 0.0092}},        {128, 256, 4, 1, 1, {340, 0.0237}},
    {192, 128, 5, 1, 1, {308, 0.0212}},      {128, 64, 4, 1, 2, {278, 0.0201}},
    {64, 64, 4, 1, 3, {250, 0.0177}},        {128, 128, 4, 1, 1, {190, 0.0366}, true},
    {192, 64, 4, 1, 1, {200, 0.0290}, true}, {64, 64, 4, 1, 2, {220, 0.0220}, true},
};

// In each range the last has the largest grid, and is the last to fit.
constexpr TensorTiles wgrad_tiles(Precision precision) {
  if (precision == Precision::tf32x3) return {9, 11};
  return precision == Precision::tf32 ? TensorTiles{5, 8} : TensorTiles{0, 4};
}

// Of every pass. Rows of wgrad are filters, but of float32 the channels of taps.
inline GemmProblem warpgroup_product(const Problem& p, const TensorLayout& l) {
  GemmProblem product = tensor_product(p, l);
  if (p.pass == Pass::wgrad && p.dtype == DType::float32) std::swap(product.rows, product.columns);
  return product;
}

// As tensor_cover
inline Cover warpgroup_wgrad_cover(const WgradTileShape& t, const GemmProblem& p, long long slice,
                                   long long multiprocessors) {
  constexpr double kAlone = 0.5, kStore = 1.5e-6;  // of tensor_core's wgrad
  Cover c{ceil_div(p.columns, t.N), ceil_div(p.rows, t.M), 1, slice, 0};
  if (slice < p.steps) c.slices = ceil_div(p.steps, slice);
  const double blocks = double(ceil_div(c.columns * c.rows * p.parts * c.slices, multiprocessors));  // of the busiest
  c.cost = (double(std::min(slice, p.steps)) + t.time.start) * t.time.step * tensor_times(blocks, t.blocks, kAlone) +
           kStore * double(p.rows) * double(p.columns) * double(p.parts * (c.slices > 1 ? c.slices : 0));
  return c;
}

// As wgrad_slice: of so many waves of blocks
inline long long warpgroup_wgrad_slice(const GemmProblem& p, const TensorTiles& tiles) {
  constexpr long long kStep = 64;  // of tiles
  Cover best{};  // none yet
  for (int i = tiles.first; i <= tiles.last; i++) {
    const WgradTileShape& t = kWgradTiles[i];
    if (!tensor_fits(t, p)) continue;
    const long long blocks = std::max(ceil_div(p.columns, t.N) * ceil_div(p.rows, t.M) * p.parts, 1LL);
    for (int each : {0, 1, 2, 3, 4, 6, 8, 12}) {
      const long long wanted = std::clamp(each * kMultiprocessors / blocks, 1LL, kGridYZ / std::max(p.parts, 1LL));
      const long long slice = std::clamp(up_to(ceil_div(p.steps, wanted), kStep), kLeastSlice, kMostSlice);
      const Cover c = warpgroup_wgrad_cover(t, p, slice, kMultiprocessors);
      if (best.slices == 0 || c.cost < best.cost) best = c;
    }
  }
  return best.slice;
}

// What is counted in 32 bits: as for tensor_core, and chunks from a pixel's first tap to its last
inline long long warpgroup_wgrad_counted(const Problem& p, const TensorLayout& l) {
  const Conv2d& g = p.g;
  const long long pixels = (g.R - 1LL) * g.dilation_h * g.W + (g.S - 1LL) * g.dilation_w + 1;
  return std::max(tensor_core_counted(p, l),
                  pixels * g.groups * ceil_div(l.second.depth * bytes_of(p.dtype), kTensorChunk));
}

// tile: counted from 1; 0: the cheapest
inline Plan warpgroup_wgrad_plan_with(const Problem& p, int tile) {
  const TensorLayout l = tensor_layout(p, true);
  const GemmProblem product = warpgroup_product(p, l);
  const TensorTiles tiles = wgrad_tiles(tensor_precision(p));
  const long long slice = warpgroup_wgrad_slice(product, tiles);
  Plan plan;
  plan.precision = tensor_precision(p), plan.layouts = p.layouts;
  Cover best{};  // none yet
  for (int i = tiles.first; i <= tiles.last; i++) {
    if ((tile && tile != i + 1) || !tensor_fits(kWgradTiles[i], product)) continue;
    const Cover c = warpgroup_wgrad_cover(kWgradTiles[i], product, slice, p.multiprocessors);
    if (best.slices == 0 || c.cost < best.cost) best = c, plan.variant = i;
  }
  const WgradTileShape& t = kWgradTiles[plan.variant];
  plan.tile = {t.M, t.N, kTensorStepBytes / bytes_of(p.dtype), 64, t.N};
  plan.rows = product.rows, plan.columns = product.columns, plan.steps = product.steps;
  plan.threads = t.threads();
  plan.grid[0] = unsigned(best.rows), plan.grid[1] = unsigned(best.columns);
  plan.grid[2] = unsigned(product.parts * best.slices);
  const int padded = p.dtype == DType::float32 ? 8 : 0;  // lines of A, of a tile that is [steps][lines]
  plan.shared = (long long)t.depth * (t.M + padded + (t.splits ? 2 : 1) * t.N) * kTensorStepBytes +
                1024;  // tiles begin on a multiple of that
  plan.microseconds = tensor_overhead(l) + best.cost;
  plan.useful =
      double(product.rows) * product.columns / std::max(double(best.rows) * t.M * double(best.columns) * t.N, 1.0);
  plan.slices = int(best.slices), plan.slice = best.slice;
  plan.workspace =
      l.first.bytes + l.second.bytes + plan.slices * (gemm_weights(p.g) + p.g.K) * (long long)sizeof(float);
  return plan;
}

// Those that have a grid, a bit each
inline unsigned warpgroup_wgrad_tiles(const Problem& p) {
  const GemmProblem product = warpgroup_product(p, tensor_layout(p, true));
  const TensorTiles tiles = wgrad_tiles(tensor_precision(p));
  unsigned fit = 0;
  for (int i = tiles.first; i <= tiles.last; i++) fit |= unsigned(tensor_fits(kWgradTiles[i], product)) << i;
  return fit;
}

}  // namespace convlab
