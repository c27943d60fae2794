// How the matrix rungs launch (im2col_gemm, implicit_gemm and register_tiled, each with tiles of its own), and what
// they cannot do.
#pragma once
#include <algorithm>
#include <climits>
#include <cmath>

#include "geometry/residues.h"
#include "kernels/rung.h"
#include "kernels/tile_shapes.h"

namespace convlab {

// Of an H100 or H200. A constant and not the GPU at hand, so that a shape has one plan everywhere, and one order of
// additions.
constexpr long long kMultiprocessors = 132;
// Steps of wgrad's sum in a slice: less does not pay for the block's start and for adding up its result.
constexpr long long kLeastSlice = 256;

// A pass as matrix products (conv2d_as_gemm.h): `parts` independent ones, the largest of rows x columns x steps.
struct Product {
  long long rows, columns, steps, parts;
};

inline Product product_of(Pass pass, const Conv2d& g) {
  const long long taps = (long long)g.R * g.S;
  switch (pass) {
    case Pass::forward: return {g.Kg(), (long long)g.N * g.P * g.Q, g.Cg() * taps, g.groups};
    case Pass::dgrad:
      return {g.Cg(), (long long)g.N * ceil_div(g.H, g.stride_h) * ceil_div(g.W, g.stride_w), g.Kg() * taps,
              (long long)g.groups * classes_of(g)};
    default: return {g.Kg(), g.Cg() * taps, (long long)g.N * g.P * g.Q, g.groups};
  }
}

// How a product is covered with a tile.
struct Cover {
  long long columns, rows;  // of tiles
  long long slices, slice;  // of wgrad's sum, and steps in each but the last
  double cost;  // what the busiest multiprocessor does, in multiply-adds
};

// With the sum in about `wanted` slices. The constants are an H200's, fitted to the times of every tile on the
// benchmark's layers, which the cost predicts to 10 % or so (2.05e5 of it a microsecond).
inline Cover cover(const TileShape& t, const Product& p, long long wanted) {
  constexpr double kLoad = 24;  // loading an element from shared memory, against a multiply-add
  // A step of a block that is alone: memory takes so long that more blocks cost nothing.
  constexpr double kLatency = 24000;
  constexpr double kStore = 40;  // a float to memory and back, for a sum that is in slices
  constexpr double kTie = 0.05;  // between tiles that wait for memory alike, the one with less to do
  Cover c{ceil_div(p.columns, t.N), ceil_div(p.rows, t.M), 1, p.steps, 0};
  if (wanted > 1) {
    c.slice = std::max(ceil_div(ceil_div(p.steps, wanted), kLeastSlice), 1LL) * kLeastSlice;
    c.slices = std::max(ceil_div(p.steps, c.slice), 1LL);
  }
  const double blocks = double(ceil_div(c.columns * c.rows * p.parts * c.slices, kMultiprocessors));  // of the busiest
  const double step = blocks * t.M * t.N * (1 + kLoad * (1.0 / t.M + 1.0 / t.N));
  const double sums = c.slices > 1 ? double(p.rows) * p.columns * p.parts * c.slices / kMultiprocessors : 0;
  c.cost = c.slice * (std::max(step, std::ceil(blocks / t.blocks_at_once()) * kLatency) + kTie * step) + kStore * sums;
  return c;
}

// The cheapest; if `sliced`, the sum may be cut so that a multiprocessor gets about 1, 2, 4, 8 or 16 blocks.
inline Cover best_cover(const TileShape& t, const Product& p, bool sliced) {
  Cover best = cover(t, p, 1);
  const long long blocks = std::max(best.columns * best.rows * p.parts, 1LL);
  if (sliced)
    for (int each : {1, 2, 4, 8, 16}) {
      const Cover c = cover(t, p, std::min(each * kMultiprocessors / blocks, kGridYZ / std::max(p.parts, 1LL)));
      if (c.cost < best.cost) best = c;
    }
  return best;
}

inline Plan gemm_plan(Pass pass, const Conv2d& g, const Tiles& tiles) {
  const Product p = product_of(pass, g);
  Plan plan;
  Cover c{};
  for (int i = tiles.first; i < tiles.last; i++) {
    const Cover other = best_cover(tiles.table[i], p, pass == Pass::wgrad);
    if (i == tiles.first || other.cost < c.cost) c = other, plan.variant = i;
  }
  plan.tile = tiles.table[plan.variant];
  plan.rows = p.rows, plan.columns = p.columns, plan.steps = p.steps;
  plan.threads = plan.tile.threads();
  plan.grid[0] = unsigned(c.columns);
  plan.grid[1] = unsigned(c.rows);
  plan.grid[2] = unsigned(p.parts * c.slices);
  const double made =
      pass == Pass::dgrad ? double(classes_of(g)) / (double(g.stride_h) * g.stride_w) : 1;  // the others are no parts
  plan.useful = made * double(outputs_of(pass, g)) /
                std::max(double(c.columns * c.rows * p.parts) * plan.tile.M * plan.tile.N, 1.0);
  if (pass == Pass::wgrad) {
    plan.slices = int(c.slices), plan.slice = c.slice;
    plan.workspace = plan.slices * ((long long)g.K * g.Cg() * g.R * g.S + g.K) * (long long)sizeof(float);
  }
  return plan;
}

inline std::string gemm_refusal(Pass pass, const Conv2d& g, const Tiles& tiles) {
  const long long x_image = (long long)g.C * g.H * g.W, y_image = (long long)g.K * g.P * g.Q,
                  weights = (long long)g.K * g.Cg() * g.R * g.S;
  if (weights > INT_MAX)
    return "keeps 32-bit offsets into the weights, which are " + std::to_string(weights) + " elements";
  const long long images =
      pass == Pass::wgrad ? kLeastSlice / std::max((long long)g.P * g.Q, 1LL) + 2 : 1;  // that a table of steps spans
  if (images * std::max(x_image, y_image) > INT_MAX)
    return "keeps 32-bit offsets inside " + std::to_string(images) + " image(s), which are " +
           std::to_string(images * std::max(x_image, y_image)) + " elements";
  const Plan plan = gemm_plan(pass, g, tiles);
  return grid_refusal(plan.grid[0], plan.grid[1], plan.grid[2]);
}

inline constexpr const char* kFloat32Only = "is compiled for float32 only";

}  // namespace convlab
