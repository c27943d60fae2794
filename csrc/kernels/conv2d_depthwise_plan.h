// The depthwise rung as data: the filters it is compiled for, what a thread takes of a plane, and how it launches.
#pragma once
#include <algorithm>
#include <climits>

#include "kernels/rung.h"

namespace convlab {

// A thread makes rows x columns neighbouring positions of a plane with a filter x filter window, of `channels` side by
// side; wgrad: sums over such.
struct DepthwiseRun {
  int filter, stride, rows, columns, channels;
};

// The first that fits. NCHW: two columns are one access of a row, and what their windows share is loaded once; at stride 2
// neighbours' windows hardly overlap. channels_last: as many channels as leave registers for their filters.
constexpr DepthwiseRun kDepthwiseRuns[] = {
    {3, 1, 8, 2, 1}, {3, 1, 8, 1, 1}, {3, 2, 4, 1, 1},  // MobileNet
    {5, 1, 8, 2, 1}, {5, 1, 8, 1, 1}, {5, 2, 4, 1, 1},  // EfficientNet has these too
    {3, 1, 4, 2, 4}, {3, 2, 2, 2, 4}, {5, 1, 4, 2, 2}, {5, 2, 2, 2, 2},  // the same, channels_last
};
constexpr int kDepthwiseRunCount = sizeof kDepthwiseRuns / sizeof kDepthwiseRuns[0];

constexpr int kDepthwiseAnyRows = 4;  // of one column, where the filter, the strides or the dilations are none of these
constexpr int kDepthwiseAnyTaps = 8;  // whose sums a block of wgrad keeps there

constexpr int kDepthwiseThreads = 128;
constexpr int kDepthwiseTogether = 32;  // channels of a block, in channels_last: lanes lie along them

// Blocks to start, all channels together, where a block goes through a slice of the runs: so many for each of the 132
// multiprocessors of an H200; constants, so that a shape has one order of additions everywhere.
constexpr long long kDepthwiseWgradBlocks = 24 * 132, kDepthwiseVectorBlocks = 6 * 132;

// Whether kernels take channels_last tensors; those of one channel are NCHW as well.
inline bool depthwise_channels_last(const Problem& p) { return p.channels_last && p.g.K > 1; }

// The number of the run that a pass is made of; kDepthwiseRunCount: none. vectors: whether tensors begin where a vector
// may.
inline int depthwise_variant(Pass pass, const Conv2d& g, bool channels_last, bool vectors = true) {
  const bool strided = g.stride_h != 1 || g.stride_w != 1;
  if (g.R != g.S || g.stride_h != g.stride_w || g.dilation_h != 1 || g.dilation_w != 1 ||
      (pass == Pass::dgrad && strided))
    return kDepthwiseRunCount;
  const int pad_w = pass == Pass::dgrad ? g.S - 1 - g.pad_w : g.pad_w;
  // rows begin at even positions, and so do the pairs of a window
  const bool pairs = g.W % 2 == 0 && g.Q % 2 == 0 && (pad_w - g.S / 2) % 2 == 0;
  const auto fits = [&](const DepthwiseRun& run) {
    if (run.filter != g.R || run.stride != g.stride_h || channels_last != (run.channels > 1)) return false;
    return channels_last ? vectors && g.K == g.C && g.C % run.channels == 0 : run.columns == 1 || (vectors && pairs);
  };
  int i = 0;
  while (i < kDepthwiseRunCount && !fits(kDepthwiseRuns[i])) i++;
  return i;
}

// What a thread makes at a time.
inline DepthwiseRun depthwise_run(Pass pass, const Conv2d& g, int variant) {
  if (variant < kDepthwiseRunCount) return kDepthwiseRuns[variant];
  const bool gathers = pass == Pass::dgrad && (g.stride_h > 1 || g.stride_w > 1);
  return {0, 0, pass == Pass::wgrad || gathers ? 1 : kDepthwiseAnyRows, 1, 1};
}

// Runs in all planes of a map. wgrad: of dy.
inline long long depthwise_pieces(Pass pass, const Conv2d& g, int variant) {
  const DepthwiseRun run = depthwise_run(pass, g, variant);
  const bool dgrad = pass == Pass::dgrad;
  return g.N * ceil_div(dgrad ? g.H : g.P, run.rows) * ceil_div(dgrad ? g.W : g.Q, run.columns);
}

struct DepthwiseGrid {
  unsigned x, y, z;
  int slices;  // of the runs
  long long slice;  // runs of each but the last
  long long positions;  // that all of it has room for
};

// slices: of wgrad, if they are given. A block has a map, or kDepthwiseTogether of them in channels_last.
inline DepthwiseGrid depthwise_grid(Pass pass, const Conv2d& g, bool channels_last, int variant, int slices = 0) {
  const DepthwiseRun run = depthwise_run(pass, g, variant);
  const int together = channels_last ? kDepthwiseTogether : 1, at_once = kDepthwiseThreads / (together / run.channels);
  const long long pieces = depthwise_pieces(pass, g, variant), rounds = std::max(ceil_div(pieces, at_once), 1LL);
  const long long maps = ceil_div(pass == Pass::dgrad ? g.C : g.K, together);
  const bool wgrad = pass == Pass::wgrad;
  const long long taps = wgrad && variant == kDepthwiseRunCount ? ceil_div((long long)g.R * g.S, kDepthwiseAnyTaps) : 1;
  DepthwiseGrid d{};
  long long most = std::min<long long>(rounds, INT_MAX);
  if (wgrad || run.channels > 1)
    most = std::clamp((channels_last ? kDepthwiseVectorBlocks : kDepthwiseWgradBlocks) / std::max(maps * taps, 1LL),
                      1LL, rounds);
  d.slice = ceil_div(rounds, slices ? slices : most) * at_once;
  d.slices = slices ? slices : int(std::max(ceil_div(pieces, d.slice), 1LL));
  d.positions = (long long)d.slices * d.slice * run.rows * run.columns * maps * together;
  if (wgrad) d.x = unsigned(d.slices), d.y = unsigned(maps), d.z = unsigned(taps);
  else d.x = unsigned(maps), d.y = unsigned(std::min(d.slices, kGridYZ)), d.z = unsigned(ceil_div(d.slices, kGridYZ));
  return d;
}

inline Plan depthwise_plan(const Problem& p) {
  const Pass pass = p.pass;
  const Conv2d& g = p.g;
  const bool channels_last = depthwise_channels_last(p);
  Plan plan;
  plan.layouts = {channels_last, channels_last && pass == Pass::wgrad, channels_last && pass != Pass::wgrad};
  plan.variant = depthwise_variant(pass, g, channels_last);
  plan.threads = kDepthwiseThreads;
  const DepthwiseRun run = depthwise_run(pass, g, plan.variant);
  const DepthwiseGrid d = depthwise_grid(pass, g, channels_last, plan.variant);
  plan.grid[0] = d.x, plan.grid[1] = d.y, plan.grid[2] = d.z;
  const long long positions = pass == Pass::wgrad ? (long long)g.N * g.K * g.P * g.Q : outputs_of(pass, g);
  plan.useful = double(positions) / std::max(double(d.positions), 1.0);
  if (pass == Pass::wgrad) {
    plan.slices = d.slices, plan.slice = d.slice;
    plan.workspace = d.slices * g.K * ((long long)g.R * g.S + 1) * (long long)sizeof(float);
  } else {
    plan.plane[0] = run.rows, plan.plane[1] = run.columns;
  }
  return plan;
}

// Elements of a plane, with rows outside it that a thread may count without loading them
inline long long depthwise_offsets(const Conv2d& g) {
  constexpr int kRowsBeyond = 16;
  return std::max((g.H + kRowsBeyond) * (long long)g.W, (g.P + kRowsBeyond) * (long long)g.Q);
}

// Elements of a row of channels_last tensors, with the columns beside it that a window may count
inline long long depthwise_row(const Problem& p) {
  constexpr long long kColumnsBeyond = 16;
  return depthwise_channels_last(p) ? (std::max(p.g.W, p.g.Q) + kColumnsBeyond) * std::max(p.g.C, p.g.K) : 0;
}

inline long long depthwise_tap_chunks(const Conv2d& g) { return ceil_div((long long)g.R * g.S, kDepthwiseAnyTaps); }

inline bool depthwise_can(const Problem& p) {
  const Conv2d& g = p.g;
  return p.dtype != DType::float64 && g.groups == g.C && depthwise_offsets(g) <= INT_MAX &&
         depthwise_row(p) <= INT_MAX && depthwise_pieces(p.pass, g, kDepthwiseRunCount) <= INT_MAX &&
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
  if (depthwise_row(p) > INT_MAX)
    return "keeps 32-bit offsets inside a row of channels_last, and one has up to " + text(depthwise_row(p)) +
           " elements";
  const long long pieces = depthwise_pieces(p.pass, g, kDepthwiseRunCount);
  if (pieces > INT_MAX) return "numbers the pieces of a channel's planes in 32 bits, and there are " + text(pieces);
  return grid_refusal(1, g.K, depthwise_tap_chunks(g));
}

// Among other groups the matrix rungs multiply mostly zeros or fill their tiles with little; one group is one channel.
inline bool depthwise_best(const Problem& p) { return p.g.groups > 1; }

inline CudaRung kDepthwise{
    .can = depthwise_can, .why_not = depthwise_why_not, .plan = depthwise_plan, .best = depthwise_best};

}  // namespace convlab
