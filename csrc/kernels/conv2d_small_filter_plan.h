// The small_filter rung as data: the filters it is compiled for, what a thread takes of each, and how it launches.
#pragma once
#include <algorithm>
#include <climits>

#include "device/warp_lanes.h"
#include "kernels/rung.h"

namespace convlab {

struct SmallFilter {
  int C, K, R, S;
};

constexpr SmallFilter kSmallFilters[] = {
    {1, 6, 5, 5},   // LeNet C1
    {6, 16, 5, 5},  // LeNet C3
    {3, 32, 3, 3},  // CIFAR's first layer
    {1, 4, 7, 7},   // a GPU course's C1
    {4, 16, 7, 7},  // its C2
};
constexpr int kSmallFilterCount = sizeof kSmallFilters / sizeof kSmallFilters[0];

// forward and dgrad: a thread makes rows x columns neighbouring outputs of `maps` maps. Few maps get more outputs, or
// loading inputs would be all a thread does; 32 maps are for two threads, because their sums would take all registers
// of one. Sixteen maps have 2 x 2 outputs: LeNet C3 has 10 x 10, which rows of four would not divide.
constexpr int kMostMaps = 16;
constexpr int small_filter_maps(int maps) { return maps < kMostMaps ? maps : kMostMaps; }
constexpr int kSmallFilterColumns = 2;

// Whether a window slides down over the rows of the filter, with the code of one: all of seven would take nvcc minutes.
// Of one map, moving the window would be most of it.
constexpr int kMostRowsUnrolled = 5;
constexpr bool small_filter_slides(int maps, int R) { return R > kMostRowsUnrolled && maps > 1; }

constexpr int small_filter_rows(int maps, int R, bool channels_last) {
  if (maps >= kMostMaps) return 2;
  return maps >= 6 || channels_last || small_filter_slides(maps, R) ? 4 : 8;
}

// channels_last: a position's maps are for neighbouring threads, four each, so that together they store whole sectors.
constexpr int kMapsOfAVector = 4;
constexpr int small_filter_maps(int maps, bool channels_last) {
  if (!channels_last) return small_filter_maps(maps);
  return maps % kMapsOfAVector == 0 ? kMapsOfAVector : maps;
}

// wgrad: a thread keeps the sums of one input channel's taps for `maps` output channels, and walks down `columns`
// neighbouring columns at once: their windows overlap, and loads from one row have one address.
constexpr int kMostTapSums = 100;
constexpr int small_filter_wgrad_maps(int K, int taps) {
  int maps = kMostTapSums / taps;
  while (K % maps) maps--;
  return maps;
}
constexpr int small_filter_wgrad_columns(int K, int taps) {
  return small_filter_wgrad_maps(K, taps) * taps <= kMostTapSums * 3 / 4 ? 4 : 2;
}

// Whether wgrad has a kernel for channels_last: where a thread loads its maps of dy as vectors, and neighbouring threads the
// others.
constexpr bool small_filter_wgrad_last(int K, int taps) {
  return small_filter_wgrad_maps(K, taps) % kMapsOfAVector == 0;
}

constexpr int kSmallFilterThreads = 128;  // a block; forward and dgrad take fewer where those fit an image better
// Blocks a multiprocessor. They leave a thread 168 registers, for 64 sums and their inputs; wgrad 255, for 100 and two
// windows.
constexpr int kSmallFilterResident = 3, kSmallFilterWgradResident = 2;

// Blocks to start: each walks over images (wgrad: strips of columns) until all are done. Sixteen, for wgrad four, for
// each of the 132 multiprocessors of an H200; a constant, so that a shape has one order of additions everywhere.
constexpr long long kSmallFilterBlocks = 16 * 132, kSmallFilterWgradBlocks = 4 * 132;

inline int small_filter_index(const Conv2d& g) {
  for (int i = 0; i < kSmallFilterCount; i++) {
    const SmallFilter& f = kSmallFilters[i];
    if (f.C == g.C && f.K == g.K && f.R == g.R && f.S == g.S) return i;
  }
  return -1;
}

// Elements of an image, with rows below it that a thread may count without loading them
inline long long small_filter_offsets(const Conv2d& g) {
  constexpr int kRowsBeyond = 16;
  return std::max((g.H + kRowsBeyond) * (long long)g.W * g.C, (g.P + kRowsBeyond) * (long long)g.Q * g.K);
}

inline bool small_filter_compiled(const Conv2d& g) {
  return small_filter_index(g) >= 0 && g.groups == 1 && g.stride_h == 1 && g.stride_w == 1 && g.dilation_h == 1 &&
         g.dilation_w == 1;
}

// 16-bit elements are loaded and stored as such, in NCHW; wgrad's kernels take nvcc longest, and are of float32 alone.
inline bool small_filter_has(const Problem& p) {
  return p.dtype == DType::float32 || (p.dtype != DType::float64 && p.pass != Pass::wgrad);
}

inline bool small_filter_can(const Problem& p) {
  return small_filter_has(p) && small_filter_compiled(p.g) && small_filter_offsets(p.g) <= INT_MAX &&
         (long long)p.g.N * p.g.Q <= INT_MAX;
}

inline std::string small_filter_why_not(const Problem& p) {
  const auto text = [](long long n) { return std::to_string(n); };
  if (p.dtype == DType::float64) return "is not compiled for float64";
  if (!small_filter_has(p)) return "has its wgrad for float32 alone";
  if (!small_filter_compiled(p.g)) {
    std::string filters;
    for (const SmallFilter& f : kSmallFilters)
      filters +=
          (filters.empty() ? "" : ", ") + text(f.C) + " to " + text(f.K) + " channels " + text(f.R) + "x" + text(f.S);
    return "is compiled for the filters " + filters + ", each at stride 1, dilation 1 and one group";
  }
  if (small_filter_offsets(p.g) > INT_MAX)
    return "keeps 32-bit offsets inside an image, and one has up to " + text(small_filter_offsets(p.g)) + " elements";
  return "numbers the columns of all images in 32 bits, and there are " + text((long long)p.g.N * p.g.Q);
}

// Blocks that an image of so many pieces is divided among: as few as fill their room, a piece each, with those of as many
// images as fit, or nearly as well as any.
inline long long small_filter_blocks(long long pieces, int room) {
  constexpr int kTried = 8;
  constexpr double kNearly = 0.95;
  const auto filled = [&](long long blocks) {
    const long long images = room / std::max(ceil_div(pieces, blocks), 1LL);
    return double(pieces) * images / double(blocks);
  };
  const long long least = std::max(ceil_div(pieces, room), 1LL);
  double best = 0;
  for (long long blocks = least; blocks < least + kTried; blocks++) best = std::max(best, filled(blocks));
  long long blocks = least;
  while (filled(blocks) < kNearly * best) blocks++;
  return blocks;
}

// Strips that a thread of wgrad walks down, of `rounds` where a block has them all: as few as kSmallFilterWgradBlocks allow,
// or more where an H200 is done sooner, because its last blocks do not run alone.
inline long long small_filter_wgrad_rounds(long long rounds, int cells) {
  constexpr long long kAtOnce = kSmallFilterWgradResident * kMultiprocessors;
  const auto busy = [&](long long each) { return each * ceil_div(ceil_div(rounds, each) * cells, kAtOnce); };
  const long long least = std::max(ceil_div(rounds, kSmallFilterWgradBlocks / cells), 1LL);
  long long best = least;
  for (long long each = least; each <= 2 * least; each++)
    if (busy(each) < busy(best)) best = each;
  return best;
}

inline Plan small_filter_plan(const Problem& p) {
  const Pass pass = p.pass;
  const Conv2d& g = p.g;
  Plan plan;
  plan.variant = small_filter_index(g);
  if (pass == Pass::wgrad) {
    const int taps = g.R * g.S, cells_of_channel = g.K / small_filter_wgrad_maps(g.K, taps);
    const bool channels_last = p.channels_last && small_filter_wgrad_last(g.K, taps);
    plan.layouts = {channels_last, channels_last, p.layouts.output};
    plan.aligned = channels_last;
    const int side_by_side = channels_last ? cells_of_channel : 1, cells = g.C * cells_of_channel / side_by_side,
              at_once = kSmallFilterThreads / side_by_side;  // strips of a block
    const long long strips = g.N * ceil_div(g.Q, small_filter_wgrad_columns(g.K, taps));
    plan.threads = kSmallFilterThreads;
    plan.slice = small_filter_wgrad_rounds(ceil_div(strips, at_once), cells) * at_once;
    plan.slices = int(std::max(ceil_div(strips, plan.slice), 1LL));
    plan.grid[0] = unsigned(plan.slices), plan.grid[1] = unsigned(cells);
    plan.workspace = plan.slices * ((long long)g.K * g.C * taps + g.K) * (long long)sizeof(float);
    plan.useful =
        double(g.N) * g.Q / std::max(double(plan.slices) * plan.slice * small_filter_wgrad_columns(g.K, taps), 1.0);
    return plan;
  }
  const bool forward = pass == Pass::forward;
  const bool float32 = p.dtype == DType::float32, channels_last = forward && p.channels_last && float32;
  if (forward && float32) plan.epilogue = Epilogue::two_by_two;
  plan.layouts = {channels_last, p.layouts.second, channels_last};
  const int all_maps = forward ? g.K : g.C, maps = small_filter_maps(all_maps, channels_last),
            rows = small_filter_rows(maps, g.R, channels_last), columns = kSmallFilterColumns;
  const int side_by_side = channels_last ? all_maps / maps : 1;  // threads of a piece
  const long long pieces = ceil_div(forward ? g.P : g.H, rows) * ceil_div(forward ? g.Q : g.W, columns);
  const int room = kSmallFilterThreads / side_by_side;
  const long long blocks = small_filter_blocks(pieces, room), pieces_a_block = std::max(ceil_div(pieces, blocks), 1LL);
  plan.images = int(std::clamp<long long>(room / pieces_a_block, 1, std::max(g.N, 1)));
  const int pieces_at_once = int(plan.images * pieces_a_block);
  plan.threads = int(ceil_div(pieces_at_once * side_by_side, kWarpLanes) * kWarpLanes);
  plan.tile = {maps * side_by_side, pieces_at_once * rows * columns, 1, maps, rows * columns};
  plan.grid[0] = unsigned(blocks);
  plan.grid[2] = unsigned(all_maps / plan.tile.M);
  const long long most =
      std::clamp(kSmallFilterBlocks / ((long long)plan.grid[0] * plan.grid[2]), 1LL, (long long)kGridYZ);
  plan.grid[1] = unsigned(std::clamp(ceil_div(g.N, plan.images), 1LL, most));
  const long long pixels = forward ? (long long)g.P * g.Q : (long long)g.H * g.W;
  plan.useful = double(g.N) * pixels * side_by_side /
                std::max(double(ceil_div(g.N, plan.images)) * plan.grid[0] * plan.threads * rows * columns, 1.0);
  return plan;
}

inline CudaRung kSmallFilter{
    .can = small_filter_can, .why_not = small_filter_why_not, .plan = small_filter_plan, .best = always_best};

}  // namespace convlab
