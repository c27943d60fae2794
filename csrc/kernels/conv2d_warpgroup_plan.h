// The warpgroup rung as data: its tiles, and what it cannot do. Operands are laid out as tensor_core's.
#pragma once
#include "kernels/conv2d_tensor_core_plan.h"

namespace convlab {

// A block's tile, of which a warpgroup makes 64 rows. `depth` tiles are on their way or in use, and `pending` more than the
// one that is multiplied keep their place; a multiprocessor has room for `blocks` of them.
struct WarpgroupTileShape {
  int M, N, depth, pending, blocks, flags;
  constexpr int threads() const { return M * 2; }
};

constexpr WarpgroupTileShape kWarpgroupTiles[] = {
    {192, 128, 5, 1, 1, 0},  // 1
    {128, 128, 3, 0, 2, 0},  // 2
    {128, 64, 4, 1, 2, 0},   // 3
    {64, 64, 4, 1, 3, 0},    // 4
    {256, 128, 4, 1, 1, 0},  // 5
    {128, 256, 4, 1, 1, 0},  // 6
    {128, 128, 6, 1, 1, 0},  // 7
    {128, 64, 4, 1, 2, 2},   // 8: as 3, A through L1
    {128, 64, 4, 0, 2, 0},   // 9: as 3, no product under way at the barrier
    {256, 64, 5, 1, 1, 2},   // 10: A through L1
    {128, 128, 3, 0, 2, 1},  // 11: as 2, without the proxy fence
    {192, 128, 5, 0, 1, 0},  // 12: as 1, no product under way at the barrier
    {128, 128, 3, 0, 2, 2},  // 13: as 2, A through L1
    {192, 128, 3, 0, 1, 2},  // 14: A through L1, of which 124 KB are left
};
constexpr int kWarpgroupTileCount = int(std::size(kWarpgroupTiles));
constexpr int kAnyWarpgroupTile = 3;  // whose grid is the largest, and the last to fit
constexpr int kMostWarpgroupRows = 256;
constexpr int kWarpgroupSlack = 1024;  // bytes, so that tiles begin on a multiple of them
constexpr int kWarpgroupCapability = 90;  // wgmma is sm_90a's alone

inline Plan warpgroup_plan_with(const Problem& p, int tile) {
  const TensorLayout l = tensor_layout(p, true);
  const GemmProblem product = tensor_product(p, l);
  Plan plan;
  plan.precision = tensor_precision(p), plan.layouts = p.layouts;
  Cover best{};  // none yet
  for (int i = 0; i < kWarpgroupTileCount; i++) {
    if ((tile ? tile != i + 1 : i > 6) || !tensor_fits(kWarpgroupTiles[i], product)) continue;
    const Cover c = tensor_cover(kWarpgroupTiles[i], product, product.steps, p.multiprocessors);
    if (best.slices == 0 || c.cost < best.cost) best = c, plan.variant = i;
  }
  const WarpgroupTileShape& t = kWarpgroupTiles[plan.variant];
  plan.tile = {t.M, t.N, kTensorStepBytes / bytes_of(p.dtype), 64, t.N};
  plan.rows = product.rows, plan.columns = product.columns, plan.steps = product.steps;
  plan.threads = t.threads();
  plan.grid[0] = unsigned(best.rows), plan.grid[1] = unsigned(best.columns), plan.grid[2] = unsigned(product.parts);
  plan.shared = (long long)t.depth * (t.M + t.N) * kTensorStepBytes + kWarpgroupSlack;
  plan.useful =
      double(product.rows) * product.columns / std::max(double(best.rows) * t.M * double(best.columns) * t.N, 1.0);
  plan.workspace = l.first.bytes + l.filter_bytes;
  return plan;
}

inline Plan warpgroup_plan(const Problem& p) { return warpgroup_plan_with(p, 0); }

// Those that have a grid, a bit each
inline unsigned warpgroup_tiles(const Problem& p) {
  const GemmProblem product = tensor_product(p, tensor_layout(p, true));
  unsigned fit = 0;
  for (int i = 0; i < kWarpgroupTileCount; i++) fit |= unsigned(tensor_fits(kWarpgroupTiles[i], product)) << i;
  return fit;
}

inline std::string warpgroup_why_not(const Problem& p) {
  const auto text = [](long long n) { return std::to_string(n); };
  if (p.dtype == DType::float64) return "is not compiled for float64";
  if (p.dtype == DType::float32 && p.rounding != Rounding::tf32)
    return "multiplies float32 in TF32, which torch.backends.cudnn.allow_tf32 does not allow";
  if (p.capability != kWarpgroupCapability)
    return "has instructions of compute capability 9.0 alone, and this GPU is of " + text(p.capability / 10) + "." +
           text(p.capability % 10);
  if (!tensor_core_groups(p.g))
    return "multiplies " + text(kLeastTensorGroup) + " channels of a group at a time or more, and these groups have " +
           text(p.g.Cg()) + " in and " + text(p.g.Kg()) + " out";
  const TensorLayout l = tensor_layout(p, true);
  if (const long long counted = tensor_core_counted(p, l, kMostWarpgroupRows); counted > INT_MAX)
    return "counts weights, the pixels of a plane and 16 bytes of " + text(kMostWarpgroupRows) +
           " images in 32 bits, and there are " + text(counted);
  const GemmProblem product = tensor_product(p, l);
  const WarpgroupTileShape& t = kWarpgroupTiles[kAnyWarpgroupTile];
  if (tensor_fits(t, product)) return "";
  return grid_refusal(ceil_div(product.rows, t.M), ceil_div(product.columns, t.N), product.parts);
}
inline bool warpgroup_can(const Problem& p) { return warpgroup_why_not(p).empty(); }

// Whether a GPU has been seen to make this right
inline bool warpgroup_best(const Problem& p) {
  return p.rounding != Rounding::exact && (kWarpgroupGate[int(tensor_precision(p))] & bit(p.pass));
}

inline CudaRung kWarpgroup{.can = warpgroup_can,
                           .why_not = warpgroup_why_not,
                           .plan = warpgroup_plan,
                           .best = warpgroup_best,
                           .as_they_lie = true};

}  // namespace convlab
