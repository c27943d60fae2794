// The tensor_core rung as data: its tiles, which operands it lays out anew, and what it cannot do.
#pragma once
#include <algorithm>
#include <climits>
#include <cmath>

#include "kernels/conv2d_gemm_plan.h"
#include "kernels/conv2d_register_tiled_plan.h"
#include "kernels/conv2d_small_filter_plan.h"
#include "kernels/tensor_core_gate.h"

namespace convlab {

// A block's tile and a warp's part of it; `depth` tiles are on their way or in use, and a multiprocessor has room for
// `blocks` of them.
struct TensorTile {
  int M, N, warp_m, warp_n, depth, blocks;
  constexpr int threads() const { return (M / warp_m) * (N / warp_n) * 32; }
};

constexpr TensorTile kTensorTiles[] = {
    {128, 128, 64, 64, 3, 2},  // 128 products of two fragments a warp for 32 loads of them
    {128, 64, 64, 32, 3, 3},   // 64 channels
    {64, 64, 32, 32, 3, 4},    // small matrices: more blocks
    {128, 16, 32, 16, 3, 4},   // few channels, of forward and dgrad
    {64, 64, 32, 32, 3, 3},    // 3xtf32 alone, whose sums take twice the registers
};
struct TensorTiles {
  int first, last;
};
constexpr TensorTiles tensor_tiles(bool promotes, bool filter) {
  return promotes ? TensorTiles{filter ? 4 : 3, 4} : TensorTiles{0, filter ? 2 : 3};
}
constexpr int kTensorStepBytes = 128;  // of a row of a tile
constexpr int kTensorChunk = 16;  // bytes of a wide copy
constexpr int kLeastTensorGroup = 8;  // channels of a group, where there are several: half of what an mma takes at once

inline Precision tensor_precision(const Problem& p) {
  if (p.dtype == DType::float16) return Precision::float16;
  if (p.dtype == DType::bfloat16) return Precision::bfloat16;
  return p.rounding == Rounding::tf32 ? Precision::tf32 : Precision::tf32x3;
}

// An activation (x or dy) as the kernels take it.
struct TensorOperand {
  bool channels_last = false;
  bool copied = false;  // into the workspace, channels_last, with `depth` channels a group
  int depth = 0;
  bool wide = false;  // chunks of 16 bytes
  long long bytes = 0;  // of the copy
};

inline long long up_to(long long n, long long multiple) { return ceil_div(n, multiple) * multiple; }

// channels: of a group. copy: have it in chunks that lie channels_last. 16-bit elements must lie so, because cp.async moves
// four bytes or more.
inline TensorOperand tensor_operand(const Problem& p, int channels, long long pixels, bool lies_channels_last,
                                    bool copy) {
  const int bytes = bytes_of(p.dtype), chunk = kTensorChunk / bytes;
  TensorOperand o;
  o.channels_last = lies_channels_last || pixels == 1;
  o.depth = channels, o.wide = channels % chunk == 0;
  o.copied = (copy || bytes == 2) && !(o.channels_last && o.wide);
  if (o.copied) {
    o.channels_last = o.wide = true, o.depth = int(up_to(channels, chunk));
    o.bytes = up_to((long long)p.g.N * pixels * p.g.groups * o.depth * bytes, 256);
  }
  return o;
}

// Everything in the workspace, in this order: the copies, the filter laid out anew, wgrad's slices.
struct TensorLayout {
  TensorOperand first, second;  // forward: x and none; dgrad: dy and none; wgrad: dy and x
  bool joined = false;  // the residue classes of dgrad are columns of one product (JoinedClasses)
  long long filter_pitch = 0, filter_lines = 0, filter_bytes = 0;
  bool filter_lies = false;  // as the kernels take it: nothing is laid out anew
};

// Whether forward and dgrad find pixels in chunks, side by side in NCHW: those of a filter of one tap, without a stride
inline bool pixels_in_chunks(const Conv2d& g, int chunk) {
  return g.R * g.S == 1 && g.P == g.H && g.Q == g.W && g.stride_h == 1 && g.stride_w == 1 && g.pad_h == 0 &&
         g.pad_w == 0 && (long long)g.P * g.Q % chunk == 0;
}

// Whether dgrad's residue classes are columns of one product, of which few would fill a tile each
inline bool joins_classes(const Problem& p) {
  constexpr int kMostColumns = 64;
  const Conv2d& g = p.g;
  const int classes = g.stride_h * g.stride_w;
  return p.pass == Pass::dgrad && classes > 1 && (long long)g.Cg() * classes <= kMostColumns && can_join_classes(g);
}

// warpgroups: as the warpgroup rung takes them, whose tiles of activations have channels side by side
inline TensorLayout tensor_layout(const Problem& p, bool warpgroups = false) {
  // A copy of float32 costs as much as reading and writing the tensor; single elements cost that at every tap. On an H200
  // it pays with so many channels, in wgrad with several taps.
  constexpr int kCopied = 8, kCopiedForWgrad = 64;
  const Conv2d& g = p.g;
  const long long inputs = (long long)g.H * g.W, outputs = (long long)g.P * g.Q;
  const int chunk = kTensorChunk / bytes_of(p.dtype);
  TensorLayout l;
  if (p.pass == Pass::wgrad && warpgroups && p.dtype == DType::float32) {  // dy: [K][positions] (positions_inner.h)
    const long long pitch = up_to((long long)p.g.N * outputs, chunk);
    const int parts = p.rounding == Rounding::tf32 ? 1 : 2;
    l.first = {true, true, g.Kg(), true, up_to(parts * g.K * pitch * bytes_of(p.dtype), 256)};
    l.second = tensor_operand(p, g.Cg(), inputs, p.layouts.second, true);
    return l;
  }
  if (p.pass == Pass::wgrad) {
    const bool any =
        p.layouts.first || p.layouts.second || (std::min(g.Cg(), g.Kg()) >= kCopiedForWgrad && g.R * g.S > 1);
    l.first = tensor_operand(p, g.Kg(), outputs, p.layouts.first, any);
    l.second = tensor_operand(p, g.Cg(), inputs, p.layouts.second, any);
    if (l.first.channels_last != l.second.channels_last) {  // one pixel is both
      l.first = tensor_operand(p, g.Kg(), outputs, p.layouts.first, true);
      l.second = tensor_operand(p, g.Cg(), inputs, p.layouts.second, true);
    }
    if (!l.first.channels_last) l.first.wide = outputs % chunk == 0, l.second.wide = false;
    return l;
  }
  const bool forward = p.pass == Pass::forward, as_it_lies = pixels_in_chunks(g, chunk);
  const int channels = forward ? g.Cg() : g.Kg();
  const bool copy = warpgroups || (!as_it_lies && channels >= kCopied);
  l.first = tensor_operand(p, channels, forward ? inputs : outputs, p.layouts.first, copy);
  if (!l.first.channels_last) l.first.wide = as_it_lies;  // else of single elements
  l.joined = joins_classes(p);
  const long long taps = l.joined ? joined_taps(g) : (long long)g.R * g.S;
  l.filter_pitch = up_to(taps * l.first.depth, chunk);
  l.filter_lines = forward ? g.K : (long long)g.C * (l.joined ? g.stride_h * g.stride_w : 1);
  l.filter_lies = forward && tensor_precision(p) != Precision::tf32 && (p.layouts.second || taps == 1) &&
                  l.first.depth == g.Cg() && l.filter_pitch == taps * g.Cg();
  l.filter_bytes = l.filter_lies ? 0 : up_to(l.filter_pitch * l.filter_lines * bytes_of(p.dtype), 256);
  return l;
}

// Residue classes that share the steps of the product
inline int tensor_classes(const Problem& p, const TensorLayout& l) {
  return p.pass == Pass::dgrad && !l.joined ? classes_of(p.g) : 1;
}

inline GemmProblem tensor_product(const Problem& p, const TensorLayout& l) {
  const Conv2d& g = p.g;
  const long long taps = (long long)g.R * g.S;
  switch (p.pass) {
    case Pass::forward: return {(long long)g.N * g.P * g.Q, g.Kg(), taps * l.first.depth, g.groups};
    case Pass::dgrad:
      if (l.joined)
        return {(long long)g.N * (g.H / g.stride_h) * (g.W / g.stride_w), (long long)g.Cg() * g.stride_h * g.stride_w,
                joined_taps(g) * l.first.depth, g.groups};
      return {(long long)g.N * ceil_div(g.H, g.stride_h) * ceil_div(g.W, g.stride_w), g.Cg(), taps * l.first.depth,
              (long long)g.groups * classes_of(g)};
    default: return {g.Kg(), taps * l.second.depth, (long long)g.N * g.P * g.Q, g.groups};
  }
}

constexpr long long kMostSlice = 1 << 29;  // so that a position in a slice, from its first image on, is an int

// How many blocks a multiprocessor has room for at once: of threads' registers, and of shared memory, where beside the
// tiles lie their lines' places (tensor_core_tile.h) and what the system keeps.
inline int tensor_blocks_at_once(const TensorTile& t, Precision precision, bool filter, long long shared) {
  constexpr long long kShared = 228 * 1024, kSystem = 1024, kPart = 300, kPosition = 16;
  const bool tables = filter || precision == Precision::tf32 || precision == Precision::tf32x3;
  const int steps = kTensorStepBytes / (precision == Precision::float16 || precision == Precision::bfloat16 ? 2 : 4);
  const long long lines = 8 * t.M + 12 * t.N + (tables ? kPosition * (t.M + t.N + 4 * steps) : 0);
  return int(std::clamp(kShared / (shared + lines + kPart + kSystem), 1LL, (long long)t.blocks));
}

// Microseconds of an H200: `step`, of as many blocks as a multiprocessor has room for, with all multiprocessors at work;
// `start`, in steps, until the first product and from the last. Fitted to the times of every tile on twelve of the
// benchmark's layers, which the cost below predicts to 11 to 16 %.
struct TensorTime {
  double start, step;
};
inline TensorTime tensor_time(Precision precision, bool filter, int tile) {
  constexpr TensorTime kOf16Bits[2][4] = {{{385, 0.0206}, {382, 0.0176}, {362, 0.0143}, {440, 0.0143}},
                                          {{222, 0.0274}, {242, 0.0198}, {70, 0.0208}}};
  constexpr TensorTime kOfTf32[2][4] = {{{187, 0.0446}, {192, 0.0315}, {179, 0.0316}, {322, 0.0318}},
                                        {{106, 0.0551}, {27, 0.0486}, {0, 0.0443}}};
  constexpr TensorTime kOf3xTf32[2][2] = {{{201, 0.0616}, {113, 0.0641}}, {{}, {174, 0.0715}}};
  if (precision == Precision::tf32x3) return kOf3xTf32[filter][tile - tensor_tiles(true, false).first];
  return precision == Precision::tf32 ? kOfTf32[filter][tile] : kOf16Bits[filter][tile];
}

// Bytes of shared memory for the tiles. Operands whose lines lie side by side in memory have them further apart.
inline long long tensor_shared(const TensorTile& t, const TensorLayout& l, bool filter) {
  const int padded = filter ? (l.first.channels_last ? 2 : 0) : (l.first.channels_last ? 0 : 1);
  return (long long)t.depth * (t.M + t.N + 8 * padded) * kTensorStepBytes;
}

// Of `blocks` a multiprocessor, which has room for so many: how many times it has all of its blocks' time. alone: of
// that, what less than a block takes.
inline double tensor_times(double blocks, int at_once, double alone) {
  const double full = std::floor(blocks / at_once), left = blocks - full * at_once;
  return full + (left > 0 ? alone + (1 - alone) * left / at_once : 0);
}

// What a tile costs in a problem, whatever the slices
struct TensorCost {
  TensorTime time;
  int at_once;
  double alone;
};
inline TensorCost tensor_cost(int tile, const Problem& problem, const TensorLayout& l) {
  constexpr double kAlone[] = {0.3, 0.5};
  const TensorTile& t = kTensorTiles[tile];
  const bool filter = problem.pass == Pass::wgrad;
  const Precision precision = tensor_precision(problem);
  return {tensor_time(precision, filter, tile),
          tensor_blocks_at_once(t, precision, filter, tensor_shared(t, l, filter)), kAlone[filter]};
}

// With so many steps in a slice, on a GPU with so many multiprocessors; classes: those of dgrad, which share the filter's
// taps, or 1. cost: microseconds.
inline Cover tensor_cover(const TensorTile& t, const TensorCost& cost, const GemmProblem& p, int classes,
                          long long slice, long long multiprocessors) {
  constexpr double kStore = 1.5e-6;  // a float to memory and back, for a sum that is in slices
  Cover c{ceil_div(p.columns, t.N), ceil_div(p.rows, t.M), 1, slice, 0};
  if (slice < p.steps) c.slices = ceil_div(p.steps, slice);
  const double blocks = double(ceil_div(c.columns * c.rows * p.parts * c.slices, multiprocessors));  // of the busiest
  const double steps = double(std::min(slice, p.steps)) / classes;
  c.cost = (steps + cost.time.start) * cost.time.step * tensor_times(blocks, cost.at_once, cost.alone) +
           kStore * double(p.rows) * double(p.columns) * double(p.parts * (c.slices > 1 ? c.slices : 0));
  return c;
}

// Microseconds beside the products': of launches, of laying the filter out anew, and of copying so many bytes
inline double tensor_overhead(const TensorLayout& l) {
  constexpr double kLaunch = 4, kFilter = 3, kCopy = 2 / 3.5e6;
  return kLaunch + (l.filter_bytes ? kFilter : 0) + kCopy * double(l.first.bytes + l.second.bytes);
}

template <class Tile> bool tensor_fits(const Tile& t, const GemmProblem& p) {
  return grid_fits(ceil_div(p.rows, t.M), ceil_div(p.columns, t.N), p.parts);
}

// As wgrad_slice
inline long long tensor_slice(const Problem& problem, const TensorLayout& l, const GemmProblem& p,
                              const TensorTiles& tiles) {
  Cover best{};  // none yet
  for (int i = tiles.first; i <= tiles.last; i++) {
    const TensorTile& t = kTensorTiles[i];
    if (!tensor_fits(t, p)) continue;
    const TensorCost cost = tensor_cost(i, problem, l);
    const long long blocks = std::max(ceil_div(p.columns, t.N) * ceil_div(p.rows, t.M) * p.parts, 1LL);
    for (int each : {0, 1, 2, 4, 8, 16}) {
      const long long wanted = std::clamp(each * kMultiprocessors / blocks, 1LL, kGridYZ / std::max(p.parts, 1LL));
      const long long slice = std::clamp(up_to(ceil_div(p.steps, wanted), kLeastSlice), kLeastSlice, kMostSlice);
      const Cover c = tensor_cover(t, cost, p, 1, slice, kMultiprocessors);
      if (best.slices == 0 || c.cost < best.cost) best = c;
    }
  }
  return best.slice;
}

// Those that have a grid, a bit each
inline unsigned tensor_core_tiles(const Problem& p) {
  const GemmProblem product = tensor_product(p, tensor_layout(p));
  const TensorTiles tiles = tensor_tiles(tensor_precision(p) == Precision::tf32x3, p.pass == Pass::wgrad);
  unsigned fit = 0;
  for (int i = tiles.first; i <= tiles.last; i++) fit |= unsigned(tensor_fits(kTensorTiles[i], product)) << i;
  return fit;
}

// tile: counted from 1; 0: the cheapest
inline Plan tensor_core_plan_with(const Problem& p, int tile) {
  const TensorLayout l = tensor_layout(p);
  const GemmProblem product = tensor_product(p, l);
  const bool sliced = p.pass == Pass::wgrad;
  Plan plan;
  plan.precision = tensor_precision(p), plan.layouts = p.layouts;
  const TensorTiles tiles = tensor_tiles(plan.precision == Precision::tf32x3, sliced);
  const long long slice = sliced ? tensor_slice(p, l, product, tiles) : product.steps;
  Cover best{};  // none yet
  for (int i = tiles.first; i <= tiles.last; i++) {
    if ((tile && tile != i + 1) || !tensor_fits(kTensorTiles[i], product)) continue;
    const Cover c =
        tensor_cover(kTensorTiles[i], tensor_cost(i, p, l), product, tensor_classes(p, l), slice, p.multiprocessors);
    if (best.slices == 0 || c.cost < best.cost) best = c, plan.variant = i;
  }
  const TensorTile& t = kTensorTiles[plan.variant];
  plan.tile = {t.M, t.N, kTensorStepBytes / bytes_of(p.dtype), t.warp_m, t.warp_n};
  plan.rows = product.rows, plan.columns = product.columns, plan.steps = product.steps;
  plan.threads = t.threads();
  plan.grid[0] = unsigned(best.rows), plan.grid[1] = unsigned(best.columns);
  plan.grid[2] = unsigned(product.parts * best.slices);
  plan.shared = tensor_shared(t, l, sliced);
  plan.microseconds = tensor_overhead(l) + best.cost;
  plan.useful =
      double(product.rows) * product.columns / std::max(double(best.rows) * t.M * double(best.columns) * t.N, 1.0);
  plan.workspace = l.first.bytes + l.second.bytes + l.filter_bytes;
  if (sliced) {
    plan.slices = int(best.slices), plan.slice = best.slice;
    plan.workspace += plan.slices * (gemm_weights(p.g) + p.g.K) * (long long)sizeof(float);
  }
  return plan;
}

inline Plan tensor_core_plan(const Problem& p) { return tensor_core_plan_with(p, 0); }

inline bool tensor_core_groups(const Conv2d& g) {
  return g.groups == 1 || (g.Cg() >= kLeastTensorGroup && g.Kg() >= kLeastTensorGroup);
}

// What is counted in 32 bits: elements of the filters as they are laid out anew, and of wgrad's planes; chunks of the
// images that the rows of a tile are of, at most one a row
inline long long tensor_core_counted(const Problem& p, const TensorLayout& l, int most_rows = kTensorTiles[0].M) {
  const Conv2d& g = p.g;
  const long long weights = std::max(gemm_weights(g), l.filter_pitch * l.filter_lines);
  if (p.pass == Pass::wgrad)
    return std::max({weights, (long long)g.P * g.Q + kMostSlice, (long long)g.R * g.S * l.second.depth});
  const long long pixels = p.pass == Pass::forward ? (long long)g.H * g.W : (long long)g.P * g.Q;
  const long long chunks = pixels * g.groups * ceil_div(l.first.depth * bytes_of(p.dtype), kTensorChunk);
  return std::max(weights, std::min(g.N, most_rows) * chunks);
}

inline bool tensor_core_can(const Problem& p) {
  if (p.dtype == DType::float64 || !tensor_core_groups(p.g)) return false;
  const TensorLayout l = tensor_layout(p);
  return tensor_core_counted(p, l) <= INT_MAX && tensor_fits(kTensorTiles[2], tensor_product(p, l));
}

inline std::string tensor_core_why_not(const Problem& p) {
  const auto text = [](long long n) { return std::to_string(n); };
  if (p.dtype == DType::float64) return "is not compiled for float64";
  if (!tensor_core_groups(p.g))
    return "multiplies " + text(kLeastTensorGroup) + " channels of a group at a time or more, and these groups have " +
           text(p.g.Cg()) + " in and " + text(p.g.Kg()) + " out";
  const TensorLayout l = tensor_layout(p);
  if (tensor_core_counted(p, l) > INT_MAX)
    return "counts weights, the pixels of a plane and 16 bytes of 128 images in 32 bits, and there are " +
           text(tensor_core_counted(p, l));
  const GemmProblem product = tensor_product(p, l);
  const TensorTile& t = kTensorTiles[2];
  return grid_refusal(ceil_div(product.rows, t.M), ceil_div(product.columns, t.N), product.parts);
}

// Microseconds that rungs for NCHW alone need to have other tensors laid out anew, and the output back
inline double layout_changes(const Problem& p) {
  constexpr double kLaunch = 2, kElement = 2 / 3.5e6;  // an element's bytes there and back, at the speed of memory
  const Conv2d& g = p.g;
  const double x = double(g.N) * g.C * g.H * g.W, y = double(g.N) * g.K * g.P * g.Q, w = double(gemm_weights(g));
  const bool forward = p.pass == Pass::forward, wgrad = p.pass == Pass::wgrad;
  const auto change = [&](bool wanted, double n) { return wanted ? kLaunch + kElement * bytes_of(p.dtype) * n : 0; };
  return change(p.layouts.first, forward ? x : y) + change(p.layouts.second, wgrad ? x : w) +
         change(p.layouts.output, forward ? y
                                  : wgrad ? w
                                          : x);
}

// Whether a plan for tensor cores says that it is faster than the rungs without them say
inline bool beats_float32_rungs(const Problem& p, const Plan& plan) {
  constexpr double kLeastUseful = 1.0 / 32;  // of a tile: one channel or two leave the rest empty
  if (small_filter_can(p)) return false;
  return !register_tiled_can(p) ||
         (plan.useful > kLeastUseful && plan.microseconds < register_tiled_plan(p).microseconds + layout_changes(p));
}

// Where a GPU has been seen to make this right, and it is faster
inline bool tensor_core_best(const Problem& p) {
  if (p.rounding == Rounding::exact || !(kTensorCoreGate[int(tensor_precision(p))] & bit(p.pass))) return false;
  return beats_float32_rungs(p, tensor_core_plan(p));
}

inline CudaRung kTensorCore{.can = tensor_core_can,
                            .why_not = tensor_core_why_not,
                            .plan = tensor_core_plan,
                            .best = tensor_core_best,
                            .as_they_lie = true};

}  // namespace convlab
