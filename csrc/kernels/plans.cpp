#include "plans.h"

#include <algorithm>
#include <climits>

#include "conv2d_small_filter.h"
#include "conv2d_tiled.h"
#include "tile_shapes.h"

namespace convlab {
namespace {

constexpr int kDirectThreads = 256;

// wgrad cuts its sum into slices until about this many blocks work on it: four for each of the 132 multiprocessors of an H100.
// A constant and not the GPU at hand, so that a shape has one order of additions everywhere.
constexpr long long kWgradBlocks = 528;
constexpr long long kLeastSlice = 256;  // steps: less does not pay for the block's start and for adding up its result

// im2col_gemm unrolls as many images at a time as fit this many bytes: more than the 50 to 60 MB of a large GPU's second cache
// hold gains nothing, and less leaves a large GPU idle between launches.
constexpr long long kUnrolledBytes = 64LL << 20;

// A pass as a matrix product (conv2d_as_gemm.h): `parts` independent ones of rows x columns x steps, the largest of them.
struct Product {
  long long rows, columns, steps, parts;
};

Product product_of(Pass pass, const Conv2d& g) {
  const long long taps = (long long)g.R * g.S;
  switch (pass) {
    case Pass::forward: return {g.Kg(), (long long)g.N * g.P * g.Q, g.Cg() * taps, g.groups};
    case Pass::dgrad:
      return {g.Cg(), (long long)g.N * ceil_div(g.H, g.stride_h) * ceil_div(g.W, g.stride_w), g.Kg() * taps, (long long)g.groups * g.stride_h * g.stride_w};
    default: return {g.Kg(), g.Cg() * taps, (long long)g.N * g.P * g.Q, g.groups};
  }
}

// Elements that a pass stores; wgrad: in each slice.
long long outputs_of(Pass pass, const Conv2d& g) {
  if (pass == Pass::wgrad) return (long long)g.K * g.Cg() * g.R * g.S;
  return pass == Pass::forward ? (long long)g.N * g.K * g.P * g.Q : (long long)g.N * g.C * g.H * g.W;
}

// The cost of covering a product with a tile: multiply-adds of whole tiles, each weighted with the loads it brings along.
double cost(const TileShape& t, const Product& p) {
  constexpr double kLoadsAgainstMultiplyAdds = 8;
  const double padded = double(ceil_div(p.rows, t.M) * t.M) * double(ceil_div(p.columns, t.N) * t.N);
  return padded * (1 + kLoadsAgainstMultiplyAdds * (1.0 / t.M + 1.0 / t.N));
}

// The tiles a rung has for a pass, [first, last) of a table.
struct Tiles {
  const TileShape* table;
  int first, last;
};

Tiles tiles_of(Algorithm algorithm, Pass pass, DType dtype) {
  if (algorithm != Algorithm::register_tiled) return {&kSharedTile, 0, 1};
  return {pass == Pass::wgrad ? kFilterTiles : kImageTiles, dtype == DType::float32 ? 0 : kFirst16BitTile, kTiles};
}

Plan gemm_plan(Pass pass, const Conv2d& g, const Tiles& tiles) {
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

std::string gemm_refusal(Pass pass, const Conv2d& g, const Tiles& tiles) {
  const long long x_image = (long long)g.C * g.H * g.W, y_image = (long long)g.K * g.P * g.Q, weights = (long long)g.K * g.Cg() * g.R * g.S;
  if (weights > INT_MAX) return "keeps 32-bit offsets into the weights, which are " + std::to_string(weights) + " elements";
  const long long images = pass == Pass::wgrad ? kLeastSlice / std::max((long long)g.P * g.Q, 1LL) + 2 : 1;  // that a table of steps spans
  if (images * std::max(x_image, y_image) > INT_MAX)
    return "keeps 32-bit offsets inside " + std::to_string(images) + " image(s), which are " + std::to_string(images * std::max(x_image, y_image)) + " elements";
  const Plan plan = gemm_plan(pass, g, tiles);
  return grid_refusal(plan.grid[0], plan.grid[1], plan.grid[2]);
}

// Images that im2col_gemm takes at a time, and g for so many of them over their unrolled input.
int images_at_a_time(const Conv2d& g) {
  const long long image = (long long)g.C * g.R * g.S * g.P * g.Q * (long long)sizeof(float);
  return int(std::clamp(kUnrolledBytes / std::max(image, 1LL), 1LL, std::max((long long)g.N, 1LL)));
}

Conv2d unrolled_chunk(Conv2d g) {
  g.N = images_at_a_time(g);
  return pointwise(g);
}

Plan im2col_plan(Pass pass, const Conv2d& g) {
  const Conv2d chunk = unrolled_chunk(g);
  Plan plan = gemm_plan(pass, chunk, tiles_of(Algorithm::im2col_gemm, pass, DType::float32));
  plan.images = chunk.N;
  plan.workspace = plan.workspace * ceil_div(g.N, chunk.N) + (long long)chunk.N * chunk.C * g.P * g.Q * (long long)sizeof(float);
  return plan;
}

// A thread for each output; in wgrad a block, whose threads share the pixels of an image.
long long direct_blocks(Pass pass, const Conv2d& g) {
  return pass == Pass::wgrad ? outputs_of(pass, g) : ceil_div(outputs_of(pass, g), kDirectThreads);
}

}  // namespace

std::string cuda_refusal(Algorithm algorithm, Pass pass, DType dtype, const Conv2d& g) {
  switch (algorithm) {
    case Algorithm::im2col_gemm:
      if (dtype != DType::float32) return "is compiled for float32 only";
      if ((long long)g.C * g.R * g.S > INT_MAX) return "unrolls into C R S rows, which are " + std::to_string((long long)g.C * g.R * g.S);
      return gemm_refusal(pass, unrolled_chunk(g), tiles_of(algorithm, pass, dtype));
    case Algorithm::tiled:
      if (dtype != DType::float32) return "is compiled for float32 only";
      return tiled_refusal(pass, g);
    case Algorithm::small_filter:
      if (dtype != DType::float32) return "is compiled for float32 only";
      return small_filter_refusal(pass, g);
    case Algorithm::implicit_gemm:
      if (dtype != DType::float32) return "is compiled for float32 only";
      return gemm_refusal(pass, g, tiles_of(algorithm, pass, dtype));
    case Algorithm::register_tiled:
      if (dtype == DType::float64) return "is not compiled for float64";
      return gemm_refusal(pass, g, tiles_of(algorithm, pass, dtype));
    default: return grid_refusal(direct_blocks(pass, g), 1, 1);
  }
}

Plan cuda_plan(Algorithm algorithm, Pass pass, DType dtype, const Conv2d& g) {
  switch (algorithm) {
    case Algorithm::im2col_gemm: return im2col_plan(pass, g);
    case Algorithm::tiled: return tiled_plan(pass, g);
    case Algorithm::small_filter: return small_filter_plan(pass, g);
    case Algorithm::implicit_gemm:
    case Algorithm::register_tiled: return gemm_plan(pass, g, tiles_of(algorithm, pass, dtype));
    default: {
      const std::string why = grid_refusal(direct_blocks(pass, g), 1, 1);  // "auto" comes here without having asked
      if (!why.empty()) throw std::invalid_argument("conv2d: no algorithm can do this: 'direct' " + why);
      Plan plan;
      plan.threads = kDirectThreads;
      plan.grid[0] = unsigned(direct_blocks(pass, g));
      const long long shared = pass == Pass::wgrad ? (long long)g.P * g.Q : outputs_of(pass, g);
      plan.useful = double(shared) / std::max(ceil_div(shared, kDirectThreads) * kDirectThreads, 1LL);
      return plan;
    }
  }
}

Algorithm cuda_choice(Pass pass, DType dtype, const Conv2d& g) {
  if (cuda_refusal(Algorithm::small_filter, pass, dtype, g).empty()) return Algorithm::small_filter;
  // A tile of the matrix rungs has sixteen rows or more; with fewer than this many channels in them, most of it would be waste.
  constexpr int kLeastRows = 4;
  const Product p = product_of(pass, g);
  const bool fills_tiles = p.rows >= kLeastRows && (pass != Pass::wgrad || p.columns >= kLeastRows);
  if (fills_tiles && cuda_refusal(Algorithm::register_tiled, pass, dtype, g).empty()) return Algorithm::register_tiled;
  return Algorithm::direct;
}

}  // namespace convlab
