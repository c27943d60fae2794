// The tiled rung as data: its passes as one correlation, what it cannot do, and how it launches.
//
// A pass makes `maps` of each group out of `depth` planes of that group. forward: maps are output channels, depth is
// input channels. dgrad: the other way round, and the filter is flipped, which takes no copy: the taps are walked from
// the last.
#pragma once
#include <algorithm>

#include "geometry/residues.h"
#include "kernels/rung.h"

namespace convlab {

constexpr int kConstantFloats = 16384;  // all 64 KB of constant memory that a module may have
constexpr int kTileSide = 16;  // outputs: most planes of small networks are between 8 and 32 wide, and 16 wastes least
constexpr int kTiledThreads = kTileSide * kTileSide;
// Blocks a multiprocessor, at least: 80 registers a thread, and another block works while one loads.
constexpr int kTiledResident = 3;
constexpr long long kStageBytes = 16 * 1024;  // of input at a time, so that several blocks share a multiprocessor
constexpr long long kSharedBytes = 48 * 1024;  // what every GPU gives a block without being asked
constexpr int kTiledMaps[] = {1, 4};  // a thread, by Plan::variant: one x from shared memory feeds as many sums

// One dimension of a pass. Position u < places of the output, which is element first + u * every of its `outputs`, is
// the sum over i < taps of element start + u * stride + i * step of the input times tap first_tap + i * next_tap of the
// filter.
struct TiledAxis {
  int outputs, places, first, every;
  int inputs, start, stride, step;
  int taps, first_tap, next_tap;
};

// x: `size` elements, y: `outputs`. `residue`: which class of positions dgrad makes (geometry/residues.h); forward has
// one.
CONVLAB_HD inline TiledAxis tiled_axis(bool forward, int residue, int size, int outputs, int kernel, int stride,
                                       int pad, int dilation) {
  if (forward) return {outputs, outputs, 0, 1, size, -pad, stride, dilation, kernel, 0, 1};
  const Residue c = residue_class(residue, size, kernel, stride, pad, dilation);
  const int last = c.taps - 1;  // without taps the steps between them are 0
  return {size,        c.places,
          c.first,     stride,
          outputs,     c.output0 - last * c.output_every,
          1,           c.output_every,
          c.taps,      c.tap0 + last * c.tap_every,
          -c.tap_every};
}

CONVLAB_HD inline TiledAxis tiled_height(bool forward, int residue, const Conv2d& g) {
  return tiled_axis(forward, residue, g.H, g.P, g.R, g.stride_h, g.pad_h, g.dilation_h);
}
CONVLAB_HD inline TiledAxis tiled_width(bool forward, int residue, const Conv2d& g) {
  return tiled_axis(forward, residue, g.W, g.Q, g.S, g.stride_w, g.pad_w, g.dilation_w);
}

// Positions of the class that has most; blocks are counted for these.
CONVLAB_HD inline int most_places(const TiledAxis& a) { return (a.outputs + a.every - 1) / a.every; }

// Inputs that `outputs` neighbouring positions see, halo included.
CONVLAB_HD inline long long tiled_extent(const TiledAxis& a, int outputs) {
  return (outputs - 1LL) * a.stride + (a.taps - 1LL) * a.step + 1;
}

// Floats from one row of the input tile to the next. A warp makes two rows of sixteen outputs: at stride 1 they read
// different banks.
CONVLAB_HD inline long long tiled_pitch(long long columns) {
  constexpr int kBanks = 32;
  return (columns + kTileSide - 1) / kBanks * kBanks + kTileSide;
}

inline FilterChunk tiled_chunk(const Conv2d& g) {
  const long long plane = (long long)g.R * g.S, filter = g.Cg() * plane, group = g.Kg() * filter;
  const auto that_fit = [](long long floats, int count) {
    return int(std::min<long long>(count, floats ? kConstantFloats / floats : count));
  };
  if (group <= kConstantFloats) return {that_fit(group, g.groups), g.Kg(), g.Cg()};
  if (filter <= kConstantFloats) return {1, that_fit(filter, g.Kg()), g.Cg()};
  return {1, 1, that_fit(plane, g.Cg())};
}

// The blocks of a launch: tiles of images, maps of groups, classes of positions. All launches of a pass have the same.
struct TiledGrid {
  long long x, y, z;
};

inline TiledGrid tiled_grid(bool forward, const Conv2d& g, const FilterChunk& chunk, int rows, int maps_a_thread) {
  const TiledAxis h = tiled_height(forward, 0, g), v = tiled_width(forward, 0, g);
  return {g.N * ceil_div(most_places(h), rows) * ceil_div(most_places(v), kTileSide),
          chunk.groups * ceil_div(forward ? chunk.filters : chunk.channels, maps_a_thread),
          forward ? 1 : (long long)g.stride_h * g.stride_w};
}

// Bytes of one input plane's tile for rows x 16 outputs; anything above what a block may have is as good as any other.
inline long long tiled_plane_bytes(const TiledAxis& h, const TiledAxis& v, int rows) {
  const auto bounded = [](long long extent) { return std::min(extent, kSharedBytes); };
  return bounded(tiled_extent(h, rows)) * tiled_pitch(bounded(tiled_extent(v, kTileSide))) * (long long)sizeof(float);
}

inline Plan tiled_plan(const Problem& p) {
  const Conv2d& g = p.g;
  const bool forward = p.pass == Pass::forward;
  const TiledAxis h = tiled_height(forward, 0, g),
                  v = tiled_width(forward, 0, g);  // no class has more taps than residue 0
  Plan plan;
  plan.chunk = tiled_chunk(g);
  const int maps = forward ? plan.chunk.filters : plan.chunk.channels,
            depth = forward ? plan.chunk.channels : plan.chunk.filters;
  plan.variant = maps > 2;
  const int owned = kTiledMaps[plan.variant];

  // a tile that is too large with its halo has fewer rows of outputs
  int rows = kTileSide;
  while (rows > 1 && tiled_plane_bytes(h, v, rows) > kSharedBytes) rows /= 2;
  const long long plane = tiled_plane_bytes(h, v, rows);
  const int stage = int(std::clamp(kStageBytes / plane, 1LL, std::max<long long>(depth, 1)));
  plan.tile = {owned, rows * kTileSide, stage, owned, 1};
  plan.threads = plan.tile.threads();
  plan.shared = stage * plane;

  const TiledGrid grid = tiled_grid(forward, g, plan.chunk, rows, owned);
  plan.grid[0] = unsigned(grid.x), plan.grid[1] = unsigned(grid.y), plan.grid[2] = unsigned(grid.z);
  plan.plane[0] = rows, plan.plane[1] = kTileSide;
  const long long places = forward ? (long long)g.N * g.P * g.Q : (long long)g.N * g.H * g.W;
  plan.useful = double(places) * plan.chunk.groups * maps /
                std::max(double(grid.x) * grid.y * grid.z * plan.threads * owned, 1.0);
  return plan;
}

inline TiledGrid tiled_grid(const Problem& p, const Plan& plan) {
  return tiled_grid(p.pass == Pass::forward, p.g, plan.chunk, plan.threads / kTileSide, plan.tile.rows);
}

inline bool tiled_can(const Problem& p) {
  if (p.dtype != DType::float32) return false;
  const Plan plan = tiled_plan(p);
  const TiledGrid grid = tiled_grid(p, plan);
  return (plan.chunk.channels > 0 || p.g.Cg() == 0) && plan.shared <= kSharedBytes && grid_fits(grid.x, grid.y, grid.z);
}

inline std::string tiled_why_not(const Problem& p) {
  if (p.dtype != DType::float32) return "is compiled for float32 only";
  const Plan plan = tiled_plan(p);
  if (plan.chunk.channels == 0 && p.g.Cg() > 0)
    return "keeps filters in constant memory, which holds " + std::to_string(kConstantFloats) +
           " weights, but one plane of a filter has " + std::to_string((long long)p.g.R * p.g.S);
  if (plan.shared > kSharedBytes)
    return "keeps its input in shared memory, where a row of " + std::to_string(kTileSide) +
           " outputs with its halo takes more than the " + std::to_string(kSharedBytes) +
           " bytes of a block at this stride, kernel size and dilation";
  const TiledGrid grid = tiled_grid(p, plan);
  return grid_refusal(grid.x, grid.y, grid.z);
}

inline CudaRung kTiled{.can = tiled_can, .why_not = tiled_why_not, .plan = tiled_plan, .best = nullptr};

}  // namespace convlab
