// `depthwise` up to its kernels: where taps lie, which of them share loads, and how a problem is cut into strips and
// slices.
#pragma once
#include <numeric>

#include "cpu/conv2d/depthwise/depthwise.h"
#include "cpu/conv2d/parts.h"
#include "cpu/conv2d/tap_tables.h"

namespace convlab::depthwise {

constexpr int64_t kPanelBytes = 24 << 10;  // of a strip between zeros: it stays in the L1, beside the target
constexpr int64_t kCacheSets = 64;  // of the L1
constexpr int64_t kSourceWays = 8;  // of it, for pixels that tiles read and write where they lie
constexpr int kFewTaps = 25;  // so few read them where they lie in any case: 2 to 3.7 times as fast with 3 x 3, AVX-512
// Of a band by 3 x 3: of two rows of the source, and of one of the target; at stride 2 of three rows
constexpr int64_t kBandPixels = 32, kSteppingPixels = 96;
constexpr int64_t kTargetBytes = 256 << 10;  // of a strip of whole pixels: each block meets its lines in the L2
constexpr int kRowOfWindows = 14;  // columns of x and y, with AVX2: windows slide over rows no shorter
constexpr int64_t kTurnedBytes = 16 << 10;  // of a vector of planes between zeros, which are turned into pixels
constexpr int kLongestRow = 9;  // of a filter: its weights stay in registers
constexpr int kLongRow = 12;  // vectors of the target: along fewer, bands are as fast
constexpr int64_t kManyVectors = 8;  // of pixels: fewer fill only a few lines of a tile's places
constexpr int64_t kManyVectorsOfRows = 16;  // without a stride
constexpr int kLongRowOfPixels = 20;  // of the target
constexpr int kShortRow = 16;  // of the target: `direct` fills few of its lanes
constexpr int64_t kPiecesWanted = 16;  // enough to share among a few threads; of wgrad's slices, no more than these

// Whether the L1 holds the rows that a row of the target needs, of one vector a pixel: pixels a multiple of many lines
// apart share few of its sets.
inline bool stays_in_cache(int64_t pixel_bytes, int64_t pixels) {
  const int64_t lines = std::max<int64_t>(1, pixel_bytes / kCacheLine);
  return pixels * std::gcd(lines, kCacheSets) <= kCacheSets * kSourceWays;
}

inline bool without_steps(const Conv2d& g) {
  return g.stride_h == 1 && g.stride_w == 1 && g.dilation_h == 1 && g.dilation_w == 1;
}

// Filters that slide over planes without tiles: square ones, and rows
inline bool has_window(const Conv2d& g) {
  if (!without_steps(g)) return false;
  return g.R == g.S ? g.R == 3 || g.R == 5 : g.R == 1 && g.S % 2 == 1 && g.S <= kLongestRow;
}

// Whether filters slide along long rows of one dimension
inline bool has_long_row(const Problem& p) {
  const Conv2d& g = p.g;
  const int columns = p.pass == Pass::dgrad ? g.W : g.Q;
  return has_window(g) && g.R == 1 && g.H == 1 && g.P == 1 && columns > kLongRow * instruction_set().lanes(p.dtype);
}

// Whether a vector of planes fits the L1 together with what is made of it: turned into pixels of a vector each, they fill
// its lanes, which rows of a few elements do not. With vectors of AVX2 3 x 3 filters slide over rows of 14 and more, in
// forward and dgrad: 1.3 to 1.8 times as fast with eight images, 0.85 to 0.95 times with one.
inline bool turns(const Problem& p) {
  const Conv2d& g = p.g;
  const bool wgrad = p.pass == Pass::wgrad, rows = g.W >= kRowOfWindows && g.Q >= kRowOfWindows;
  if (!wgrad && rows && has_window(g) && g.R == 3 && instruction_set().vector_bytes <= 32) return false;
  const int64_t vector = instruction_set().vector_bytes, x = int64_t(g.H + 2 * g.pad_h) * (g.W + 2 * g.pad_w),
                y = int64_t(g.P) * g.Q;
  return g.C >= instruction_set().lanes(p.dtype) && vector * std::max(x, y) <= kTurnedBytes;
}

// Filters that slide over pixels where they lie, in forward and dgrad, at stride 2 in forward. By 3 x 3 wide tiles are faster
// where the L1 does not hold what a band meets again, 0.75 to 0.95 times; larger filters gain in any case.
inline bool has_pixel_window(const Problem& p) {
  const Conv2d& g = p.g;
  const bool halves = g.stride_h == 2 && g.stride_w == 2 && g.dilation_h == 1 && g.dilation_w == 1,
             steps = halves && p.pass == Pass::forward && g.S <= 5;
  if (!slides_over_pixels(instruction_set()) || p.pass == Pass::wgrad || g.Cg() != 1 || g.R != g.S) return false;
  if (!steps && !without_steps(g)) return false;
  if (g.S == 3) return stays_in_cache(g.C * sum_bytes(p.dtype), steps ? kSteppingPixels : kBandPixels);
  return g.S == 5 || g.S == 7;
}

// Whether taps stay in registers over rectangles, not in triples that share loads of x. Measured with AVX2, eight images.
// Forward and dgrad, from 64 channels on: 1.1 to 1.5 times as fast with a stride; without one 1.15 to 1.6 times along rows of
// 20 and more with 128 channels and more, else 0.65 to 1.1 times. wgrad: with a stride 1.2 to 2.3 times, without one 1.1 to
// 1.8 times, but 0.6 to 0.9 times with large filters or a few vectors of channels_last.
inline bool keeps_taps(const Problem& p, bool in_place) {
  const Conv2d& g = p.g;
  const int64_t vectors = g.C / instruction_set().lanes(p.dtype);  // whole ones
  const bool steps = g.stride_h > 1 || g.stride_w > 1, few_taps = g.R * g.S <= kTapsAtOnce,
             many = vectors >= kManyVectors;
  if (instruction_set().many_registers() || g.Cg() != 1) return false;
  if (p.pass == Pass::wgrad) return steps || (few_taps && (!p.layouts.second || vectors <= 1 || many));
  const bool long_rows = (p.pass == Pass::dgrad ? g.W : g.Q) >= kLongRowOfPixels;
  return in_place && few_taps && (steps ? many : long_rows && vectors >= kManyVectorsOfRows);
}

// What kernels take, and all it points to
struct Tables {
  int lanes;
  bool vectors_lie;  // whole ones in memory, of the type of the sums
  int64_t element, vectors;  // of channels
  Depthwise d{};
  int64_t weight_bytes, bias_bytes;  // shared

  explicit Tables(const Problem& p)
      : lanes(instruction_set().lanes(p.dtype)), element(sum_bytes(p.dtype)), vectors((p.g.C + lanes - 1) / lanes) {
    const Conv2d& g = p.g;
    const bool backwards = p.pass == Pass::dgrad, same_type = is_sum_type(p.dtype);
    const Strides x = x_strides(p), y = y_strides(p);
    d.product = product_of(g, p.pass, p.dtype, x, y);
    d.channels = g.C, d.group = g.Cg(), d.kernel_taps = g.R * g.S * d.group;
    const bool planes = d.group == 1 && ((p.pass == Pass::forward ? y : x).c != 1 || g.C == 1);
    d.long_row = planes && has_long_row(p);
    vectors_lie = same_type && g.C >= lanes;
    d.keeps_taps = keeps_taps(p, vectors_lie && x.c == 1 && y.c == 1);
    const bool small = !d.long_row && turns(p);
    d.planes = planes && !small;
    if (d.planes) take_planes(g, backwards, same_type);
    else take_pixels(p, backwards, small && p.pass == Pass::wgrad && (x.c != 1 || !d.keeps_taps));

    Product& product = d.product;
    const bool in_place = !d.planes && d.source_in_place && d.target_in_place, wide = in_place && p.pass != Pass::wgrad;
    const bool slides = wide && has_pixel_window(p);
    if (slides) d.window = window_of(g, backwards);
    const int64_t shares = slides ? std::clamp<int64_t>(kPiecesWanted / std::max(1, g.N), 1, vectors) : 1;
    if (wide) d.vectors_per_piece = int((vectors + shares - 1) / shares);
    const int64_t pieces = std::max<int64_t>(1, g.N * (d.planes ? g.C : parts_of(d, vectors))),
                  rows = product.rows.target;
    const int64_t strips = std::max<int64_t>(
        {1, (kPiecesWanted + pieces - 1) / pieces,
         in_place && !slides ? rows * product.columns.target * g.C * element / kTargetBytes : 1,
         d.source_in_place ? 1 : (product.rows.source * d.row * element + kPanelBytes - 1) / kPanelBytes});
    product.rows_per_strip = int(std::max<int64_t>(1, (rows + strips - 1) / strips));
    if (wide && backwards) product.rows_per_strip = in_pairs(product.rows_per_strip);
    for (int row = 0; row < rows; row += product.rows_per_strip)
      d.rows_reached =
          std::max(d.rows_reached, rows_reached(d, row, std::min(int(rows), row + product.rows_per_strip)).count);
    const int64_t channels = vectors * lanes * element;
    weight_bytes = (d.planes ? g.C * element : channels) * d.kernel_taps, bias_bytes = channels;
    if (p.pass != Pass::wgrad) return;
    const int64_t most = d.planes ? kPiecesWanted / d.channels : kPiecesWanted;
    d.slices = int(std::clamp<int64_t>(most, 1, std::max<int64_t>(1, product.strips())));
    const int64_t wanted = std::min(vectors, (kPiecesWanted + d.slices - 1) / d.slices);
    d.vectors_per_piece = int((vectors + wanted - 1) / wanted);
    weight_bytes *= d.slices, bias_bytes = 0;
  }
  Tables(const Tables&) = delete;

  int64_t pieces(Pass pass) const {
    if (d.planes) return d.channels * (pass == Pass::wgrad ? d.slices : d.product.strips());
    return parts_of(d, vectors) * (pass == Pass::wgrad ? d.slices : d.product.strips());
  }

 private:
  static Window window_of(const Conv2d& g, bool backwards) {
    return {.rows = g.R,
            .columns = g.S,
            .row_offset = backwards ? g.pad_h - (g.R - 1) : -g.pad_h,
            .column_offset = backwards ? g.pad_w - (g.S - 1) : -g.pad_w,
            .flipped = backwards,
            .step = g.stride_w};
  }

  void take_planes(const Conv2d& g, bool backwards, bool same_type) {
    if (has_window(g)) d.window = window_of(g, backwards);
    d.source_in_place = d.window.rows && same_type && d.product.source.w == 1;
    d.target_in_place = same_type && d.product.target.w == 1 && (!backwards || g.stride_w == 1);
    d.in_pairs = backwards && g.stride_w == 2 && g.W > 1 && d.product.target.w == 1;
    add_padded(g, backwards, lanes, backwards ? 1 : g.stride_w, 1);
  }

  // in_panel: a copy of a small image stays in the L1, where tiles meet it again and again
  void take_pixels(const Problem& problem, bool backwards, bool in_panel) {
    const Conv2d& g = problem.g;
    const Product& p = d.product;
    static_assert(kTapsAtOnce <= kFewTaps, "taps in registers are read where they lie");
    d.source_in_place = vectors_lie && p.source.c == 1 && !in_panel &&
                        (g.R * g.S <= kFewTaps || has_pixel_window(problem) ||
                         stays_in_cache(p.source.w * element, int64_t(p.columns.source) * (g.R + 1)));
    d.target_in_place = vectors_lie && p.target.c == 1;
    if (!d.source_in_place) return add_padded(g, backwards, 1, 1, lanes);
    const auto classes = backwards ? dgrad_classes : forward_classes;
    d.row = p.source.h, d.pixel = p.source.w;
    add(rising(without_padding(classes(rows_of(g)))), rising(without_padding(classes(columns_of(g)))), g.S);
  }

  // In a panel whose rows begin vectors of `unit`, and whose positions are `pixel` elements
  void add_padded(const Conv2d& g, bool backwards, int unit, int phases, int pixel) {
    std::vector<Part> columns = rising(with_padding(columns_of(g), backwards));
    d.panel = panel_of(columns, d.product.columns.source, unit, unit, phases);
    d.pixel = pixel, d.row = d.panel.length() * pixel;
    add(rising(with_padding(rows_of(g), backwards)), columns, g.S);
  }

  void add(const std::vector<Part>& rows, const std::vector<Part>& columns, int S) {
    size_t row_taps = 0, column_taps = 0;
    for (const Part& r : rows) row_taps += r.taps.size();
    for (const Part& c : columns) column_taps += c.taps.size();
    blocks_.reserve(rows.size() * columns.size()), taps_.reserve(row_taps * column_taps);
    for (const Part& r : rows)
      for (const Part& c : columns) {
        const bool down = d.planes || r.places.count > c.places.count, none = r.offsets.empty();
        blocks_.push_back({r.places, c.places, none ? 0 : r.offsets.front(), none ? -1 : r.offsets.back(), down,
                           down ? taps_of(r, S, d.row, c, 1, d.pixel) : taps_of(c, 1, d.pixel, r, S, d.row)});
      }
    d.blocks = blocks_.data(), d.block_count = int(blocks_.size());
  }

  // weight: from a tap to the next one on the axis; step: elements between places of the source
  Taps taps_of(const Part& along, int weight, int64_t step, const Part& across, int across_weight,
               int64_t across_step) {
    const int n = int(along.taps.size()), between = n > 1 ? along.taps[1] - along.taps[0] : 0;
    const auto neighbours = [&](int i) {  // tap i and the next
      return along.offsets[i + 1] - along.offsets[i] == along.places.from_step &&
             along.taps[i + 1] - along.taps[i] == between;
    };
    const auto three = [&](int i) { return !d.keeps_taps && i + 2 < n && neighbours(i) && neighbours(i + 1); };
    Taps all{taps_.data() + taps_.size(), 0, 0, int64_t(between) * weight * d.group};
    for (const bool triples : {true, false})
      for (size_t j = 0; j < across.taps.size(); j++)
        for (int i = 0; i < n; i += three(i) ? 3 : 1) {
          if (three(i) != triples) continue;
          taps_.push_back({along.offsets[i] * step + across.offsets[j] * across_step,
                           (int64_t(along.taps[i]) * weight + int64_t(across.taps[j]) * across_weight) * d.group});
          (triples ? all.triples : all.singles)++;
        }
    return all;
  }

  std::vector<Block> blocks_;
  std::vector<Tap> taps_;
};

// Groups of a few channels lie within a vector, side by side.
inline bool can(const Problem& p) {
  const int group = p.g.Cg();
  return p.g.K == p.g.C && group > 0 && group <= kLargestGroup && instruction_set().lanes(p.dtype) % group == 0;
}

inline std::string why_not(const Problem& p) {
  const Conv2d& g = p.g;
  return "has one input and one output channel a group, or 2, 4 or 8 of each that divide a vector, and " +
         std::to_string(g.groups) + " group(s) of " + std::to_string(g.C) + " input and " + std::to_string(g.K) +
         " output channels have " + std::to_string(g.Cg()) + " and " + std::to_string(g.Kg());
}

inline CpuPlan plan(const Problem& problem) {
  const Problem p = problem.pass == Pass::wgrad ? problem : with_rows_of_vectors(problem);
  const auto tables = std::make_shared<const Tables>(p);
  const Depthwise& d = tables->d;
  return {.images_per_strip = 1,
          .rows_per_strip = d.product.rows_per_strip,
          .pieces = tables->pieces(p.pass),
          .slices = d.slices,
          .workspace = measured([&](Measure& memory) { Shared(memory, tables->weight_bytes, tables->bias_bytes); }),
          .scratch = measured<Bench>(p.dtype, d, tables->lanes, p.pass == Pass::wgrad),
          .tables = tables,
          .activates = is_sum_type(p.dtype)};
}

// Tiles along rows of one dimension have no neighbours to share loads with: there `direct` is faster along long ones
// (measured on AVX2: 1.3 to 2.4 times from 500 floats on, 0.7 to 0.9 times at 37), and always in wgrad (1.0 to 3 times).
// Filters that slide are up to 3 times as fast as `direct`.
inline bool is_long_row(const Problem& p) {
  const Conv2d& g = p.g;
  const int64_t lanes = instruction_set().lanes(p.dtype), longest = (is_sum_type(p.dtype) ? 12 : 48) * lanes;
  return g.H == 1 && g.R == 1 && g.P == 1 && !p.channels_last && (p.pass == Pass::wgrad || g.Q >= longest) &&
         !has_window(g);
}

// Groups share a vector with others, unless they fill it, which `register_tiled` broadcasts for; and lanes can be moved in
// one instruction. In channels_last that is 1.5 to 6 times as fast as what else there is (AVX2 and AVX-512). Of planes
// `direct` is faster along rows without stride that fill its vectors (1.1 to 1.3 times); with AVX2 also with a stride, in
// wgrad (1.1 to 2.2 times), and forward in groups of four along rows of whole vectors (1.2 to 1.6 times).
inline bool best_in_groups(const Problem& p) {
  const Conv2d& g = p.g;
  const int lanes = instruction_set().lanes(p.dtype);
  if (sum_bytes(p.dtype) != 4 || instruction_set().vector_bytes < 32 || g.Cg() == lanes) return false;
  if (p.channels_last) return true;
  if (g.R * g.S == 1) return false;
  if (g.Q <= kShortRow) return true;
  if (g.stride_w == 1) return false;
  return lanes > 8 || p.pass == Pass::dgrad || (p.pass == Pass::forward && (g.Cg() < 4 || g.Q % lanes));
}

inline bool best(const Problem& p) { return p.g.groups > 1 && (p.g.Cg() > 1 ? best_in_groups(p) : !is_long_row(p)); }

inline CpuRung rung{.can = can, .why_not = why_not, .plan = plan, .best = best};

}  // namespace convlab::depthwise
