// The warpgroup rung as data: its tiles, and what it cannot do. Operands are laid out as tensor_core's.
#pragma once
#include "kernels/conv2d_tensor_core_plan.h"
#include "kernels/warpgroup_wgrad_plan.h"

namespace convlab {

// A block's tile, of which a warpgroup makes 64 rows. `depth` tiles are on their way or in use, and those of `pending` more
// than the one that is multiplied keep their place; a multiprocessor has room for `blocks` of them. of_16_bits, of_float32:
// as tensor_time has them, fitted to the times of every tile on eight of the benchmark's layers, to 18 %. splits: of strict
// float32 (3xTF32), fitted to 3 x 3 of 64 to 512 channels.
struct WarpgroupTileShape {
  int M, N, depth, pending, blocks;
  TensorTime of_16_bits, of_float32;
  bool splits = false;
  constexpr int threads() const { return M * 2; }
  constexpr int shared() const { return depth * (M + (splits ? 2 : 1) * N) * kTensorStepBytes; }
};

constexpr WarpgroupTileShape kWarpgroupTiles[] = {
    {192, 128, 5, 1, 1, {517, 0.0109}, {308, 0.0212}}, {128, 256, 4, 1, 1, {629, 0.0120}, {340, 0.0237}},
    {128, 128, 3, 0, 2, {413, 0.0142}, {295, 0.0260}}, {128, 64, 4, 1, 2, {431, 0.0104}, {278, 0.0201}},
    {64, 64, 4, 1, 3, {406, 0.0092}, {250, 0.0177}},   {128, 128, 4, 1, 1, {}, {180, 0.0400}, true},
    {192, 64, 4, 1, 1, {}, {188, 0.0330}, true},       {64, 64, 3, 0, 3, {}, {162, 0.0348}, true},
};
constexpr int kWarpgroupTileCount = int(std::size(kWarpgroupTiles));
// In each range the last has the largest grid, and is the last to fit.
constexpr TensorTiles warpgroup_tiles_of(Precision precision) {
  return precision == Precision::tf32x3 ? TensorTiles{5, 7} : TensorTiles{0, 4};
}
constexpr int kMostWarpgroupRows = 192;
constexpr int kWarpgroupSlack = 1024;  // bytes, so that tiles begin on a multiple of them
constexpr int kWarpgroupCapability = 90;  // wgmma is sm_90a's alone

// As tensor_cover
inline Cover warpgroup_cover(const WarpgroupTileShape& t, const Problem& problem, const GemmProblem& p, int classes) {
  constexpr double kAlone = 0.15;
  Cover c{ceil_div(p.columns, t.N), ceil_div(p.rows, t.M), 1, p.steps, 0};
  const double blocks = double(ceil_div(c.columns * c.rows * p.parts, (long long)problem.multiprocessors));
  const TensorTime time = problem.dtype == DType::float32 ? t.of_float32 : t.of_16_bits;
  const double steps = double(p.steps) / classes;
  c.cost = (steps + time.start) * time.step * tensor_times(blocks, t.blocks, kAlone);
  return c;
}

inline Plan warpgroup_plan_with(const Problem& p, int tile) {
  if (p.pass == Pass::wgrad) return warpgroup_wgrad_plan_with(p, tile);
  const TensorLayout l = tensor_layout(p, true);
  const GemmProblem product = tensor_product(p, l);
  Plan plan;
  plan.precision = tensor_precision(p), plan.layouts = p.layouts;
  Cover best{};  // none yet
  const TensorTiles tiles = warpgroup_tiles_of(plan.precision);
  for (int i = tiles.first; i <= tiles.last; i++) {
    if ((tile && tile != i + 1) || !tensor_fits(kWarpgroupTiles[i], product)) continue;
    const Cover c = warpgroup_cover(kWarpgroupTiles[i], p, product, tensor_classes(p, l));
    if (best.slices == 0 || c.cost < best.cost) best = c, plan.variant = i;
  }
  const WarpgroupTileShape& t = kWarpgroupTiles[plan.variant];
  plan.tile = {t.M, t.N, kTensorStepBytes / bytes_of(p.dtype), 64, t.N};
  plan.rows = product.rows, plan.columns = product.columns, plan.steps = product.steps;
  plan.threads = t.threads();
  plan.grid[0] = unsigned(best.rows), plan.grid[1] = unsigned(best.columns), plan.grid[2] = unsigned(product.parts);
  plan.shared = t.shared() + kWarpgroupSlack;
  plan.microseconds = tensor_overhead(l) + best.cost;
  plan.useful =
      double(product.rows) * product.columns / std::max(double(best.rows) * t.M * double(best.columns) * t.N, 1.0);
  plan.workspace = l.first.bytes + l.filter_bytes;
  return plan;
}

inline Plan warpgroup_plan(const Problem& p) { return warpgroup_plan_with(p, 0); }

// Those that have a grid, a bit each
inline unsigned warpgroup_tiles(const Problem& p) {
  if (p.pass == Pass::wgrad) return warpgroup_wgrad_tiles(p);
  const GemmProblem product = tensor_product(p, tensor_layout(p, true));
  const TensorTiles tiles = warpgroup_tiles_of(tensor_precision(p));
  unsigned fit = 0;
  for (int i = tiles.first; i <= tiles.last; i++) fit |= unsigned(tensor_fits(kWarpgroupTiles[i], product)) << i;
  return fit;
}

inline long long warpgroup_counted(const Problem& p, const TensorLayout& l) {
  return p.pass == Pass::wgrad ? warpgroup_wgrad_counted(p, l) : tensor_core_counted(p, l, kMostWarpgroupRows);
}

inline bool warpgroup_can(const Problem& p) {
  if (p.dtype == DType::float64 || p.capability != kWarpgroupCapability || !tensor_core_groups(p.g)) return false;
  const TensorLayout l = tensor_layout(p, true);
  return warpgroup_counted(p, l) <= INT_MAX &&
         tensor_fits(kWarpgroupTiles[warpgroup_tiles_of(tensor_precision(p)).last], warpgroup_product(p, l));
}

inline std::string warpgroup_why_not(const Problem& p) {
  const auto text = [](long long n) { return std::to_string(n); };
  if (p.dtype == DType::float64) return "is not compiled for float64";
  if (p.capability != kWarpgroupCapability)
    return "has instructions of compute capability 9.0 alone, and this GPU is of " + text(p.capability / 10) + "." +
           text(p.capability % 10);
  if (!tensor_core_groups(p.g))
    return "multiplies " + text(kLeastTensorGroup) + " channels of a group at a time or more, and these groups have " +
           text(p.g.Cg()) + " in and " + text(p.g.Kg()) + " out";
  const TensorLayout l = tensor_layout(p, true);
  if (const long long counted = warpgroup_counted(p, l); counted > INT_MAX)
    return "counts weights, the pixels of a plane and 16 bytes of " + text(kMostWarpgroupRows) +
           " images, or of an image between two taps, in 32 bits, and there are " + text(counted);
  const GemmProblem product = warpgroup_product(p, l);
  const WarpgroupTileShape& t = kWarpgroupTiles[warpgroup_tiles_of(tensor_precision(p)).last];
  return grid_refusal(ceil_div(product.rows, t.M), ceil_div(product.columns, t.N), product.parts);
}

// Where a GPU has been seen to make this right, and it is faster
inline bool warpgroup_best(const Problem& p) {
  if (p.rounding == Rounding::exact || !(kWarpgroupGate[int(tensor_precision(p))] & bit(p.pass))) return false;
  const Plan plan = warpgroup_plan(p);
  return beats_float32_rungs(p, plan) && (!tensor_core_can(p) || plan.microseconds < tensor_core_plan(p).microseconds);
}

inline CudaRung kWarpgroup{.can = warpgroup_can,
                           .why_not = warpgroup_why_not,
                           .plan = warpgroup_plan,
                           .best = warpgroup_best,
                           .as_they_lie = true};

}  // namespace convlab
