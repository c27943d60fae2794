// The depthwise rung as data: the filters it is compiled for, what a thread takes of a plane, and how it launches.
#pragma once
#include <algorithm>
#include <climits>

#include "kernels/rung.h"

namespace convlab {

// A thread makes rows x columns neighbouring positions of a plane with a filter x filter window; wgrad: sums over such.
struct DepthwiseRun {
  int filter, stride, rows, columns;
};

// The first that fits. Two columns are one access of a row, and what their windows share is loaded once; at stride 2
// neighbours' windows hardly overlap.
constexpr DepthwiseRun kDepthwiseRuns[] = {
    {3, 1, 8, 2}, {3, 1, 8, 1}, {3, 2, 4, 1},  // MobileNet
    {5, 1, 8, 2}, {5, 1, 8, 1}, {5, 2, 4, 1},  // EfficientNet has these too
};
constexpr int kDepthwiseRunCount = sizeof kDepthwiseRuns / sizeof kDepthwiseRuns[0];

constexpr int kDepthwiseAnyRows = 4;  // of one column, where the filter, the strides or the dilations are none of these
constexpr int kDepthwiseAnyTaps = 8;  // whose sums a block of wgrad keeps there

constexpr int kDepthwiseThreads = 128;

// Blocks of wgrad to start, all channels together: 24 for each of the 132 multiprocessors of an H200; a constant, so
// that a shape has one order of additions everywhere.
constexpr long long kDepthwiseWgradBlocks = 24 * 132;

// The number of the run that a pass is made of; kDepthwiseRunCount: none. pairs: whether tensors lie so that two
// neighbours can be one access.
inline int depthwise_variant(Pass pass, const Conv2d& g, bool pairs = true) {
  const bool strided = g.stride_h != 1 || g.stride_w != 1;
  if (g.R != g.S || g.stride_h != g.stride_w || g.dilation_h != 1 || g.dilation_w != 1 ||
      (pass == Pass::dgrad && strided))
    return kDepthwiseRunCount;
  const int pad_w = pass == Pass::dgrad ? g.S - 1 - g.pad_w : g.pad_w;
  // rows begin at even positions, and so do the pairs of a window
  pairs = pairs && g.W % 2 == 0 && g.Q % 2 == 0 && (pad_w - g.S / 2) % 2 == 0;
  int i = 0;
  while (i < kDepthwiseRunCount && (kDepthwiseRuns[i].filter != g.R || kDepthwiseRuns[i].stride != g.stride_h ||
                                    (kDepthwiseRuns[i].columns > 1 && !pairs)))
    i++;
  return i;
}

// What a thread makes at a time.
inline DepthwiseRun depthwise_run(Pass pass, const Conv2d& g, int variant) {
  if (variant < kDepthwiseRunCount) return kDepthwiseRuns[variant];
  const bool gathers = pass == Pass::dgrad && (g.stride_h > 1 || g.stride_w > 1);
  return {0, 0, pass == Pass::wgrad || gathers ? 1 : kDepthwiseAnyRows, 1};
}

// Runs in all planes of a map. wgrad: of dy.
inline long long depthwise_pieces(Pass pass, const Conv2d& g, int variant) {
  const DepthwiseRun run = depthwise_run(pass, g, variant);
  const bool dgrad = pass == Pass::dgrad;
  return g.N * ceil_div(dgrad ? g.H : g.P, run.rows) * ceil_div(dgrad ? g.W : g.Q, run.columns);
}

// forward and dgrad: x the maps, y and z the pieces
inline void depthwise_grid(Pass pass, const Conv2d& g, int variant, unsigned (&grid)[3]) {
  const long long blocks = std::max(ceil_div(depthwise_pieces(pass, g, variant), kDepthwiseThreads), 1LL);
  grid[0] = unsigned(pass == Pass::forward ? g.K : g.C);
  grid[1] = unsigned(std::min<long long>(blocks, kGridYZ));
  grid[2] = unsigned(ceil_div(blocks, kGridYZ));
}

inline long long depthwise_slice(long long pieces, long long slices) {
  return std::max(ceil_div(ceil_div(pieces, slices), kDepthwiseThreads), 1LL) * kDepthwiseThreads;
}

inline Plan depthwise_plan(const Problem& p) {
  const Pass pass = p.pass;
  const Conv2d& g = p.g;
  Plan plan;
  plan.variant = depthwise_variant(pass, g);
  plan.threads = kDepthwiseThreads;
  const DepthwiseRun run = depthwise_run(pass, g, plan.variant);
  const long long pieces = depthwise_pieces(pass, g, plan.variant);
  if (pass == Pass::wgrad) {
    const long long taps = (long long)g.R * g.S,
                    chunks = plan.variant < kDepthwiseRunCount ? 1 : ceil_div(taps, kDepthwiseAnyTaps);
    const long long most = std::max(kDepthwiseWgradBlocks / std::max(g.K * chunks, 1LL), 1LL);
    plan.slice = depthwise_slice(pieces, std::clamp(ceil_div(pieces, kDepthwiseThreads), 1LL, most));
    plan.slices = int(std::max(ceil_div(pieces, plan.slice), 1LL));
    plan.grid[0] = unsigned(plan.slices), plan.grid[1] = unsigned(g.K), plan.grid[2] = unsigned(chunks);
    plan.workspace = plan.slices * g.K * (taps + 1) * (long long)sizeof(float);
    plan.useful = double(g.N) * g.P * g.Q / std::max(double(plan.slices) * plan.slice * run.rows * run.columns, 1.0);
    return plan;
  }
  plan.plane[0] = run.rows, plan.plane[1] = run.columns;
  depthwise_grid(pass, g, plan.variant, plan.grid);
  const double blocks = double(plan.grid[0]) * ceil_div(pieces, kDepthwiseThreads);
  plan.useful = double(outputs_of(pass, g)) / std::max(blocks * kDepthwiseThreads * run.rows * run.columns, 1.0);
  return plan;
}

// Elements of a plane, with rows outside it that a thread may count without loading them
inline long long depthwise_offsets(const Conv2d& g) {
  constexpr int kRowsBeyond = 16;
  return std::max((g.H + kRowsBeyond) * (long long)g.W, (g.P + kRowsBeyond) * (long long)g.Q);
}

inline long long depthwise_tap_chunks(const Conv2d& g) { return ceil_div((long long)g.R * g.S, kDepthwiseAnyTaps); }

inline bool depthwise_can(const Problem& p) {
  const Conv2d& g = p.g;
  return p.dtype != DType::float64 && g.groups == g.C && depthwise_offsets(g) <= INT_MAX &&
         depthwise_pieces(p.pass, g, kDepthwiseRunCount) <= INT_MAX &&
         (p.pass != Pass::wgrad || grid_fits(1, g.K, depthwise_tap_chunks(g)));
}

inline std::string depthwise_why_not(const Problem& p) {
  const Conv2d& g = p.g;
  const auto text = [](long long n) { return std::to_string(n); };
  if (p.dtype == DType::float64) return "is compiled for float32, float16 and bfloat16";
  if (g.groups != g.C)
    return "has one input channel a group, and " + text(g.groups) + " group(s) of " + text(g.C) + " channels have " +
           text(g.Cg());
  if (depthwise_offsets(g) > INT_MAX)
    return "keeps 32-bit offsets inside a plane, and one has up to " + text(depthwise_offsets(g)) + " elements";
  const long long pieces = depthwise_pieces(p.pass, g, kDepthwiseRunCount);
  if (pieces > INT_MAX) return "numbers the pieces of a channel's planes in 32 bits, and there are " + text(pieces);
  return grid_refusal(1, g.K, depthwise_tap_chunks(g));
}

// Among other groups the matrix rungs multiply mostly zeros or fill their tiles with little; one group is one channel.
inline bool depthwise_best(const Problem& p) { return p.g.groups > 1; }

inline CudaRung kDepthwise{
    .can = depthwise_can, .why_not = depthwise_why_not, .plan = depthwise_plan, .best = depthwise_best};

}  // namespace convlab
