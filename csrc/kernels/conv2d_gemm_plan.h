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

// Steps of wgrad's sum in a slice: less does not pay for the block's start and for adding up its result.
constexpr long long kLeastSlice = 256;

// A pass as matrix products (conv2d_as_gemm.h): `parts` independent ones, the largest of rows x columns x steps.
struct GemmProblem {
  long long rows, columns, steps, parts;
};

inline GemmProblem product_of(Pass pass, const Conv2d& g) {
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

// Steps of a slice, if the sum is to be in about `wanted` of them
inline long long slice_for(const GemmProblem& p, long long wanted) {
  return wanted > 1 ? std::max(ceil_div(ceil_div(p.steps, wanted), kLeastSlice), 1LL) * kLeastSlice : p.steps;
}

// With so many steps in a slice, on a GPU with so many multiprocessors. The constants are an H200's, fitted to the times
// of every tile on the benchmark's layers, which the cost predicts to 10 % or so.
constexpr double kCostOfMicrosecond = 2.05e5;

inline Cover cover(const TileShape& t, const GemmProblem& p, long long slice, long long multiprocessors) {
  constexpr double kLoad = 24;  // loading an element from shared memory, against a multiply-add
  // A step of a block that is alone: memory takes so long that more blocks cost nothing.
  constexpr double kLatency = 24000;
  constexpr double kStore = 40;  // a float to memory and back, for a sum that is in slices
  constexpr double kTie = 0.05;  // between tiles that wait for memory alike, the one with less to do
  Cover c{ceil_div(p.columns, t.N), ceil_div(p.rows, t.M), 1, slice, 0};
  if (slice < p.steps) c.slices = ceil_div(p.steps, slice);
  const double blocks = double(ceil_div(c.columns * c.rows * p.parts * c.slices, multiprocessors));  // of the busiest
  const double step = blocks * t.M * t.N * (1 + kLoad * (1.0 / t.M + 1.0 / t.N));
  const double sums = c.slices > 1 ? double(p.rows) * p.columns * p.parts * c.slices / multiprocessors : 0;
  c.cost = c.slice * (std::max(step, std::ceil(blocks / t.blocks_at_once()) * kLatency) + kTie * step) + kStore * sums;
  return c;
}

// Whether a launch with this tile has a grid; slices are cut so that they fit.
inline bool tile_fits(const TileShape& t, const GemmProblem& p) {
  return grid_fits(ceil_div(p.columns, t.N), ceil_div(p.rows, t.M), p.parts);
}

// Steps of wgrad's slices, from the shape alone: of the cheapest cover of an H200, with which a multiprocessor gets all
// of its blocks' sums, or about 1, 2, 4, 8 or 16 blocks.
inline long long wgrad_slice(const GemmProblem& p, const Tiles& tiles) {
  Cover best{};  // none yet
  for (int i = tiles.first; i < tiles.last; i++) {
    const TileShape& t = tiles.table[i];
    if (!tile_fits(t, p)) continue;
    const long long blocks = std::max(ceil_div(p.columns, t.N) * ceil_div(p.rows, t.M) * p.parts, 1LL);
    for (int each : {0, 1, 2, 4, 8, 16}) {
      const long long wanted = std::min(each * kMultiprocessors / blocks, kGridYZ / std::max(p.parts, 1LL));
      const Cover c = cover(t, p, slice_for(p, wanted), kMultiprocessors);
      if (best.slices == 0 || c.cost < best.cost) best = c;
    }
  }
  return best.slice;
}

// Of these tiles, those that have a grid, a bit each
inline unsigned tiles_that_fit(const GemmProblem& p, const Tiles& tiles) {
  unsigned fit = 0;
  for (int i = tiles.first; i < tiles.last; i++) fit |= unsigned(tile_fits(tiles.table[i], p)) << i;
  return fit;
}

// The cheapest tile on the GPU that runs, or the one asked for, counted from 1. Sums are in the order of their steps in
// every tile, so neither changes a bit.
inline Plan gemm_plan(Pass pass, const Conv2d& g, const Tiles& tiles, int multiprocessors, int tile = 0) {
  const GemmProblem p = product_of(pass, g);
  const long long slice = pass == Pass::wgrad ? wgrad_slice(p, tiles) : p.steps;
  Plan plan;
  Cover c{};  // none yet
  for (int i = tiles.first; i < tiles.last; i++) {
    if ((tile && tile != i + 1) || !tile_fits(tiles.table[i], p)) continue;
    const Cover other = cover(tiles.table[i], p, slice, multiprocessors);
    if (c.slices == 0 || other.cost < c.cost) c = other, plan.variant = i;
  }
  plan.tile = tiles.table[plan.variant];
  plan.microseconds = c.cost / kCostOfMicrosecond / (pass == Pass::dgrad ? classes_of(g) : 1);  // which share the taps
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

inline long long gemm_weights(const Conv2d& g) { return (long long)g.K * g.Cg() * g.R * g.S; }

// Images that a table of steps spans, and their elements
inline long long gemm_images(Pass pass, const Conv2d& g) {
  return pass == Pass::wgrad ? kLeastSlice / std::max((long long)g.P * g.Q, 1LL) + 2 : 1;
}
inline long long gemm_offsets(Pass pass, const Conv2d& g) {
  return gemm_images(pass, g) * std::max((long long)g.C * g.H * g.W, (long long)g.K * g.P * g.Q);
}

inline bool gemm_can(Pass pass, const Conv2d& g, const Tiles& tiles) {
  if (gemm_weights(g) > INT_MAX || gemm_offsets(pass, g) > INT_MAX) return false;
  const GemmProblem p = product_of(pass, g);
  return std::any_of(tiles.table + tiles.first, tiles.table + tiles.last,
                     [&](const TileShape& t) { return tile_fits(t, p); });
}

inline std::string gemm_why_not(Pass pass, const Conv2d& g, const Tiles& tiles) {
  if (gemm_weights(g) > INT_MAX)
    return "keeps 32-bit offsets into the weights, which are " + std::to_string(gemm_weights(g)) + " elements";
  if (gemm_offsets(pass, g) > INT_MAX)
    return "keeps 32-bit offsets inside " + std::to_string(gemm_images(pass, g)) + " image(s), which are " +
           std::to_string(gemm_offsets(pass, g)) + " elements";
  const GemmProblem p = product_of(pass, g);
  const TileShape& largest = tiles.table[tiles.first];
  return grid_refusal(ceil_div(p.columns, largest.N), ceil_div(p.rows, largest.M), p.parts);
}

inline constexpr const char* kFloat32Only = "is compiled for float32 only";

}  // namespace convlab
