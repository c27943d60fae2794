// How the matrix rungs launch, and what they cannot do: im2col_gemm, implicit_gemm and register_tiled, each with tiles of its own.
#pragma once
#include <algorithm>
#include <climits>

#include "rung.h"
#include "tile_shapes.h"

namespace convlab {

// wgrad cuts its sum into slices until about this many blocks work on it: four for each of the 132 multiprocessors of an H100.
// A constant and not the GPU at hand, so that a shape has one order of additions everywhere.
constexpr long long kWgradBlocks = 528;
constexpr long long kLeastSlice = 256;  // steps: less does not pay for the block's start and for adding up its result

// A pass as a matrix product (conv2d_as_gemm.h): `parts` independent ones of rows x columns x steps, the largest of them.
struct Product {
  long long rows, columns, steps, parts;
};

inline Product product_of(Pass pass, const Conv2d& g) {
  const long long taps = (long long)g.R * g.S;
  switch (pass) {
    case Pass::forward: return {g.Kg(), (long long)g.N * g.P * g.Q, g.Cg() * taps, g.groups};
    case Pass::dgrad:
      return {g.Cg(), (long long)g.N * ceil_div(g.H, g.stride_h) * ceil_div(g.W, g.stride_w), g.Kg() * taps, (long long)g.groups * g.stride_h * g.stride_w};
    default: return {g.Kg(), g.Cg() * taps, (long long)g.N * g.P * g.Q, g.groups};
  }
}

// The cost of covering a product with a tile: multiply-adds of whole tiles, each weighted with the loads it brings along.
inline double cost(const TileShape& t, const Product& p) {
  constexpr double kLoadsAgainstMultiplyAdds = 8;
  const double padded = double(ceil_div(p.rows, t.M) * t.M) * double(ceil_div(p.columns, t.N) * t.N);
  return padded * (1 + kLoadsAgainstMultiplyAdds * (1.0 / t.M + 1.0 / t.N));
}

inline Plan gemm_plan(Pass pass, const Conv2d& g, const Tiles& tiles) {
  const Product p = product_of(pass, g);
  Plan plan;
  plan.variant = tiles.first;
  for (int i = tiles.first; i < tiles.last; i++)
    if (cost(tiles.table[i], p) < cost(tiles.table[plan.variant], p)) plan.variant = i;
  plan.tile = tiles.table[plan.variant];
  plan.rows = p.rows, plan.columns = p.columns, plan.steps = p.steps;
  plan.threads = plan.tile.threads();
  plan.grid[0] = unsigned(ceil_div(p.columns, plan.tile.N));
  plan.grid[1] = unsigned(ceil_div(p.rows, plan.tile.M));
  plan.grid[2] = unsigned(p.parts);
  const long long blocks = (long long)plan.grid[0] * plan.grid[1] * plan.grid[2];
  plan.useful = double(outputs_of(pass, g)) / std::max(double(blocks) * plan.tile.M * plan.tile.N, 1.0);
  if (pass == Pass::wgrad) {
    const long long wanted = std::clamp(ceil_div(kWgradBlocks, std::max(blocks, 1LL)), 1LL, std::max(kGridYZ / p.parts, 1LL));
    plan.slice = std::max(ceil_div(ceil_div(p.steps, wanted), kLeastSlice), 1LL) * kLeastSlice;
    plan.slices = int(std::max(ceil_div(p.steps, plan.slice), 1LL));
    plan.grid[2] *= plan.slices;
    plan.workspace = plan.slices * ((long long)g.K * g.Cg() * g.R * g.S + g.K) * (long long)sizeof(float);
  }
  return plan;
}

inline std::string gemm_refusal(Pass pass, const Conv2d& g, const Tiles& tiles) {
  const long long x_image = (long long)g.C * g.H * g.W, y_image = (long long)g.K * g.P * g.Q, weights = (long long)g.K * g.Cg() * g.R * g.S;
  if (weights > INT_MAX) return "keeps 32-bit offsets into the weights, which are " + std::to_string(weights) + " elements";
  const long long images = pass == Pass::wgrad ? kLeastSlice / std::max((long long)g.P * g.Q, 1LL) + 2 : 1;  // that a table of steps spans
  if (images * std::max(x_image, y_image) > INT_MAX)
    return "keeps 32-bit offsets inside " + std::to_string(images) + " image(s), which are " + std::to_string(images * std::max(x_image, y_image)) + " elements";
  const Plan plan = gemm_plan(pass, g, tiles);
  return grid_refusal(plan.grid[0], plan.grid[1], plan.grid[2]);
}

inline constexpr const char* kFloat32Only = "is compiled for float32 only";

}  // namespace convlab
