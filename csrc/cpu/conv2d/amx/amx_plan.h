// `amx` up to its kernels: which taps reach which positions, how pixels and taps become rows and steps of tile registers,
// how a problem is cut into strips, and when it is best.
#pragma once
#include <algorithm>
#include <string>
#include <vector>

#include "cpu/conv2d/amx/amx.h"
#include "cpu/conv2d/direct/direct_plan.h"
#include "cpu/conv2d/parts.h"
#include "cpu/conv2d/tap_tables.h"
#include "geometry/ranges.h"

namespace convlab::amx {

constexpr int64_t kStripBytes = 512 << 10, kLongStripBytes = 1 << 20;  // of the source, in an L2 of 2 MB
constexpr int64_t kLargeWeights = 1 << 20;  // more bytes come from L3 for every strip, so strips are long
constexpr int64_t kStripPixels = 2048, kFewPixels = 256;
constexpr int64_t kPiecesWanted = 16;
constexpr int kFewChannelsOfPlanes = 16;  // whose taps of a row are in the panel
constexpr int64_t kShortPlane = 128, kTermsOfPlanes = 400;

// float32 is rounded to bfloat16 before it is multiplied, where torch's switch allows that
inline bool takes(const Problem& p) {
  return p.dtype == DType::bfloat16 || (p.dtype == DType::float32 && p.rounding == Rounding::bf16);
}
inline bool can(const Problem& p) {
  const Conv2d& g = p.g;
  return takes(p) && has_amx() && int64_t(g.C) * g.H * g.W <= INT32_MAX && int64_t(g.K) * g.P * g.Q <= INT32_MAX;
}

inline std::string why_not(const Problem& p) {
  if (!takes(p))
    return "computes bfloat16, and float32 where torch.backends.mkldnn.conv.fp32_precision is 'bf16', which allows its "
           "products to be rounded so";
  if (!has_amx())
    return "needs AMX: a processor with amx_bf16, a system that lets this process use it, and CONVLAB_CPU not set, or "
           "to 'amx'";
  return "takes images of up to 2^31 - 1 elements";
}

// When "auto" takes it: where it was as fast as any other, or faster, in bfloat16
constexpr int kFewDepth = 3, kFewOfGroup = 4, kFewOfGroupInPlanes = 8;
constexpr int kManyPhases = 256;  // rows times columns, by stride: each has tiles of its own
// ... and in float32, whose other kernels need not turn it into anything
constexpr int kFewOfFloats = 3, kFewOfGroupOfFloats = 16, kFewTermsOfFloats = 16, kFewOutputs = 9;
constexpr int kFewOfPointwise = 8, kManyPhasesOfFloats = 16;
constexpr int kMostApart = 2;  // columns of planes, by the stride, that are taken apart as vectors
constexpr int64_t kMostCopies = 4;  // of a row of the source, in the panels of all strips

// Whether panels of strips, whose rows are few where channels are many, have a row of the source many times: with a wide
// dilation
inline bool copies_much(const Problem& p) {
  const Conv2d& g = p.g;
  const bool dgrad = p.pass == Pass::dgrad;
  const int64_t height = std::max(1, dgrad ? g.P : g.H),
                row = std::max<int64_t>(1, int64_t(dgrad ? g.Q : g.W) * (dgrad ? g.Kg() : g.Cg()) * 2),
                rows = std::clamp<int64_t>(kLongStripBytes / row, 1, height),
                reach = std::min((g.R - 1) * int64_t(g.dilation_h), 2 * height);
  return rows + reach > kMostCopies * rows;
}

inline bool best_of_floats(const Problem& p) {
  const Conv2d& g = p.g;
  const int least = std::min(g.Cg(), g.Kg());
  const int64_t phases = int64_t(g.stride_h) * g.stride_w,
                terms = int64_t(p.pass == Pass::dgrad ? g.Kg() : g.Cg()) * g.R * g.S;
  if (p.rounding != Rounding::bf16 || direct::is_matrix_product(p)) return false;
  if (g.groups > 1 && least < kFewOfGroupOfFloats) return false;
  if ((g.R * g.S == 1 && least < kFewOfPointwise) || int64_t(g.P) * g.Q < kFewOutputs) return false;
  // columns that no tap meets are rounded, too, and those of planes one by one where they are further apart
  if (g.stride_w > std::max(kMostApart, (g.S - 1) * g.dilation_w + 1)) return false;
  if (p.pass == Pass::wgrad && !p.channels_last && g.stride_w > kMostApart) return false;
  if (p.pass != Pass::wgrad && copies_much(p)) return false;
  return least >= kFewOfFloats && terms >= kFewTermsOfFloats &&
         phases <= (p.pass == Pass::forward ? kManyPhases : kManyPhasesOfFloats);
}

inline bool best(const Problem& p) {
  const Conv2d& g = p.g;
  const bool wgrad = p.pass == Pass::wgrad;
  // x is read at the same distance from all positions, with zeros between its rows
  if (wgrad && ((g.R - 1) * int64_t(g.dilation_h) > g.H || (g.S - 1) * int64_t(g.dilation_w) > g.W)) return false;
  if (p.dtype == DType::float32) return best_of_floats(p);
  if (int64_t(g.stride_h) * g.stride_w > kManyPhases) return false;
  if (direct::is_matrix_product(p) && p.pass != Pass::forward) return false;
  if (g.groups > 1) return std::min(g.Cg(), g.Kg()) >= (p.channels_last || wgrad ? kFewOfGroup : kFewOfGroupInPlanes);
  return p.channels_last || wgrad || (p.pass == Pass::dgrad ? g.Kg() : g.Cg()) >= kFewDepth;
}

// All phases of a dimension, and what they point to
class Phases {
 public:
  int first = 0, last = -1;  // positions of the source that taps reach, also outside

  Phases(const Axis& axis, bool dgrad) : parts_(rising(with_padding(axis, dgrad))) {
    for (Part& part : parts_) {
      leave_out_unmet(part, dgrad ? axis.outputs : axis.size);
      const Places& p = part.places;
      const int least = part.offsets.empty() ? 0 : part.offsets.front();
      for (int& offset : part.offsets) offset -= least;
      all_.push_back({.at = p.at,
                      .at_step = p.at_step,
                      .count = p.count,
                      .from = p.from + least,
                      .from_step = p.from_step,
                      .tap_count = int(part.taps.size()),
                      .taps = part.taps.data(),
                      .offsets = part.offsets.data()});
      if (part.taps.empty() || p.count <= 0) continue;
      const int from = p.from + least, end = from + (p.count - 1) * p.from_step + part.offsets.back();
      const bool none = last < first;
      first = none ? from : std::min(first, from), last = none ? end : std::max(last, end);
    }
  }
  const std::vector<Phase>& all() const { return all_; }

 private:
  // Taps that read nothing but padding from every position, of which a panel would have much
  static void leave_out_unmet(Part& part, int size) {
    const Places& p = part.places;
    size_t kept = 0;
    for (size_t t = 0; t < part.taps.size(); t++) {
      const int at = p.from + part.offsets[t];
      if (const Range met = places_inside(p.count, size, p.from_step, at); met.begin >= met.end) continue;
      part.taps[kept] = part.taps[t], part.offsets[kept++] = part.offsets[t];
    }
    part.taps.resize(kept), part.offsets.resize(kept);
  }
  std::vector<Part> parts_;
  std::vector<Phase> all_;
};

// The largest even divisor of n up to a step's depth
inline int block_of(int n) {
  int block = kDepth;
  while (n % block) block -= 2;
  return block;
}

inline bool side_by_side(const Phase& p) { return p.tap_count > 1 && p.offsets[p.tap_count - 1] == p.tap_count - 1; }

struct Tables {
  Phases rows, columns;
  std::vector<Segment> segments;
  AmxProduct t{};
  int64_t weight_bytes, bias_bytes;

  explicit Tables(const Problem& p) : Tables(p, read_of(p)) {}

  int64_t pieces() const { return t.product.strips() * t.product.groups * t.parts(); }

 private:
  struct Read {  // the problem's geometry without what no filter meets
    Conv2d g;
    Strides x;
  };
  static Read read_of(const Problem& p) {
    Read read{p.g, x_strides(p)};
    if (p.pass == Pass::dgrad) return read;
    if (read.x.c == 1) leave_out_skipped(read.g, read.x);
    else leave_out_skipped_rows(read.g, read.x);  // a row's elements stay side by side
    return read;
  }

  Tables(const Problem& p, const Read& read)
      : rows(rows_of(read.g), p.pass == Pass::dgrad), columns(columns_of(read.g), p.pass == Pass::dgrad) {
    t.product = product_of(read.g, p.pass, p.dtype, read.x, y_strides(p));
    t.filters = filters_of(p);
    t.rows = rows.all().data(), t.columns = columns.all().data(), t.row_phases = int(rows.all().size());
    Product& product = t.product;
    t.first_column = columns.first, t.panel_columns = columns.last - columns.first + 1;
    t.planes = takes_planes(read.g, p.pass);
    if (t.planes) take_planes();
    else {
      // where it lies, a run of taps has nothing between its pixels, and they are bfloat16
      const bool may_lie = (product.groups == 1 || p.g.S == 1) && rows.first >= 0 && columns.first >= 0 &&
                           rows.last < product.rows.source && columns.last < product.columns.source &&
                           product.source.c == 1 && p.dtype == DType::bfloat16;
      choose_channels(may_lie);
      t.in_place = may_lie && t.pixel_channels == product.depth;
      if (t.in_place) t.first_column = 0, t.panel_columns = product.columns.source;
    }
    for (int r = 0; r < int(rows.all().size()); r++)
      for (int c = 0; c < int(columns.all().size()); c++) add_segment(r, c);
    t.segments = segments.data(), t.segment_count = int(segments.size());
    weight_bytes = int64_t(product.groups) * t.panels() * t.panel_weights;
    bias_bytes = int64_t(product.groups) * t.panels() * kPanel * int64_t(sizeof(float));
    cut();
    const int64_t pieces = std::max<int64_t>(1, product.strips() * product.groups),
                  parts = std::clamp<int64_t>(kPiecesWanted / pieces, 1, std::max(1, t.panels()));
    t.panels_per_piece = std::max(1, int((t.panels() + parts - 1) / parts));
  }

  // Tiles of pixels, a panel's rows, are read faster than pairs of planes, whose rows lie far apart, and a tap's anywhere in
  // their lines; but planes need not be turned. Measured.
  bool takes_planes(const Conv2d& g, Pass pass) const {
    const Strides &source = t.product.source, &target = t.product.target;
    if (source.w != 1 || source.c == 1 || target.w != 1 || target.c == 1) return false;
    if (pass == Pass::forward && g.stride_w > kMostApart) return false;
    if (t.product.depth < kFewChannelsOfPlanes) return true;
    int taps = 0, taps_of_row = 0;  // of a phase, at most
    for (const Phase& r : rows.all())
      for (const Phase& c : columns.all())
        taps = std::max(taps, r.tap_count * c.tap_count), taps_of_row = std::max(taps_of_row, c.tap_count);
    const bool scattered = pass == Pass::dgrad && g.stride_w > 1;
    return int64_t(g.P) * g.Q >= kShortPlane &&
           (taps_of_row == 1 || (scattered && taps_of_row == 2) || int64_t(t.product.depth) * taps <= kTermsOfPlanes);
  }
  // Of planes: where channels are few, and all positions meet the same taps of a row, these make a step longer
  void take_planes() {
    const Phase &row = t.rows[0], &column = t.columns[0];
    const int depth = t.product.depth;
    t.taps_in_panel = columns.all().size() == 1 && depth < kFewChannelsOfPlanes && column.tap_count > 1;
    const bool plain = row.from_step == 1 && column.from_step == 1 && t.product.source.h == t.product.columns.source;
    if (t.taps_in_panel) {
      t.pixel_channels = depth;
      t.whole_rows = plain && columns.first >= 0 && columns.last < t.product.columns.source;
      t.panel_columns = t.whole_rows ? t.product.columns.source : column.count * column.from_step;
    } else {
      choose_channels(false);
      t.whole_rows = plain && columns.first == 0 && t.panel_columns == t.product.columns.source;
    }
    t.elements = int(round_up(int64_t(t.pixel_channels) * (t.taps_in_panel ? column.tap_count : 1), 2));
    const auto phases = [](const Phase& p, int apart) {
      return p.tap_count ? std::min(apart, p.offsets[p.tap_count - 1] + 1) : 1;
    };
    t.rows_apart = std::max(1, row.from_step), t.columns_apart = std::max(1, column.from_step);
    t.row_phases_read = phases(row, t.rows_apart);
    t.column_phases_read = t.taps_in_panel ? 1 : phases(column, t.columns_apart);
  }

  int64_t steps(int channels) {
    int64_t all = 0;
    for (const Phase& c : columns.all()) {
      const int run = in_a_run(c);
      if (c.tap_count) all += int64_t(c.tap_count / run) * (run * channels / block_of(run * channels));
    }
    return all;
  }
  // The channels of a pixel: even, and so many that steps are few
  void choose_channels(bool may_stay) {
    const int least = int(round_up(std::max(1, t.product.depth), 2));
    t.pixel_channels = least;
    int64_t fewest = steps(least);
    const int64_t enough = may_stay && least == t.product.depth ? fewest - fewest / 8 : fewest;  // a copy costs, too
    for (int channels = least + 2; channels < least + kDepth; channels += 2)
      if (const int64_t count = steps(channels); count < std::min(fewest, enough))
        fewest = count, t.pixel_channels = channels;
  }
  int in_a_run(const Phase& columns) const {  // taps
    const bool run = t.planes ? t.taps_in_panel : side_by_side(columns);
    return run ? columns.tap_count : 1;
  }
  void add_segment(int r, int c) {
    const Phase &row = t.rows[r], &column = t.columns[c];
    const bool empty = !row.tap_count || !column.tap_count;
    const int run = in_a_run(column), elements = t.planes ? t.elements : run * t.pixel_channels,
              depth = empty ? 2 : block_of(elements);
    const Segment s{.rows = r,
                    .columns = c,
                    .run_taps = run,
                    .runs = empty ? 0 : column.tap_count / run,
                    .blocks = elements / depth,
                    .depth = depth,
                    .weights = t.panel_weights};
    segments.push_back(s);
    t.most_runs = std::max(t.most_runs, int64_t(row.tap_count) * s.runs);
    t.panel_weights += int64_t(row.tap_count) * s.runs * s.blocks * depth * kPanel * 2;
  }
  int64_t bytes_of_rows(int images, int64_t rows) const {  // of a panel
    if (t.planes) return t.elements * 2 * PlanesPanel(t, images, rows).pair;
    return images * rows * t.panel_columns * t.pixel_channels * 2;
  }
  void cut() {
    Product& product = t.product;
    const int64_t all_rows = rows.last - rows.first + 1, image = std::max<int64_t>(1, bytes_of_rows(1, all_rows)),
                  pixels = std::max<int64_t>(1, int64_t(product.rows.target) * product.columns.target);
    const bool large = weight_bytes / std::max(1, product.groups) > kLargeWeights;
    const int64_t room = large ? kLongStripBytes : kStripBytes, fit = std::min(room / image, kStripPixels / pixels);
    product.images_per_strip =
        int(std::clamp<int64_t>(fit, 1, std::max<int64_t>(1, large ? product.images : product.images / kPiecesWanted)));
    if (pixels * product.images_per_strip < kFewPixels)
      product.images_per_strip =
          int(std::clamp<int64_t>(std::min(fit, kFewPixels / pixels), 1, std::max(1, product.images)));
    product.rows_per_strip = product.rows.target;
    if (fit < 1) {
      const int64_t strips = std::max((image + room - 1) / room, (pixels + kStripPixels - 1) / kStripPixels);
      product.rows_per_strip = in_pairs((product.rows.target + strips - 1) / strips);
    }
    // of a strip: at most the source's share for its rows, and what the filter reaches beside it
    int64_t step = 1, reach = 0, longest = 0;
    for (const Phase& r : rows.all())
      step = r.from_step,
      reach = std::max<int64_t>(reach, r.tap_count ? r.offsets[r.tap_count - 1] + std::abs(r.from) : 0);
    for (const Phase& c : columns.all()) longest = std::max<int64_t>(longest, c.count);
    t.panel_rows = std::min<int64_t>(all_rows, product.rows_per_strip * step + 2 * reach + 2);
    t.panel_elements = bytes_of_rows(product.images_per_strip, t.panel_rows) / 2;
    t.tiles = int64_t(product.images_per_strip) * product.rows_per_strip * ((longest + kRows - 1) / kRows);
  }
};

// wgrad's strips, so that x and dy of a strip, for a block of 32 channels, are near the L1
constexpr int64_t kSumPositions = 384, kFewPositions = 256, kPositionBytes = 1 << 20;  // 768: 0.8
constexpr int64_t kSliceBytes = 4 << 20;  // of all slices' sums together
constexpr int kShortRow = 32;  // of 1 x 1 filters: small images of such rows are one row

// Of a dimension: how many phases of x its taps meet
inline int phases_of(const Axis& a) { return std::min(a.stride, (a.kernel - 1) * a.dilation + 1); }

// Elements from a row of x, taken apart, to the next one, where its zeros may be the next one's, too
inline int pitch_of(const Axis& a) {
  int pitch = a.outputs;
  for (int phase = 0; phase < phases_of(a); phase++) {
    const int needed = a.outputs + ((a.kernel - 1) * a.dilation - phase) / a.stride;
    const Range inside = places_inside(needed, a.size, a.stride, phase - a.pad);
    pitch = std::max(pitch, inside.end + std::max(0, needed - inside.end - inside.begin));
  }
  return pitch;
}

struct WgradTables {
  AmxWgrad a{};
  int64_t weight_bytes;

  explicit WgradTables(const Problem& p) {
    Conv2d g = p.g;
    Strides x = x_strides(p), y = y_strides(p);
    if (is_pointwise(g) && g.P == g.H && g.Q == g.W && g.H * g.W <= kSumPositions && (g.Q % 2 || g.Q < kShortRow))
      g.W = g.Q = g.H * g.W, g.H = g.P = 1;
    a.product = product_of(g, p.pass, p.dtype, x, y);
    a.filters = filters_of(p);
    a.vertical = rows_of(g), a.horizontal = columns_of(g);
    Product& product = a.product;
    a.row_phases = phases_of(a.vertical), a.column_phases = phases_of(a.horizontal);
    a.pitch = int(round_up(pitch_of(a.horizontal), 2)), a.image_rows = pitch_of(a.vertical);
    const int64_t image = int64_t(a.image_rows) * a.pitch,
                  most = std::clamp(kPositionBytes / 2 / std::max(1, product.depth + product.width), kFewPositions,
                                    kSumPositions);
    product.images_per_strip = int(std::clamp<int64_t>(most / image, 1, std::max(1, product.images)));
    product.rows_per_strip =
        image <= most ? product.rows.target : int(std::clamp<int64_t>(most / a.pitch, 1, product.rows.target));
    const int64_t rows = (product.images_per_strip - 1) * int64_t(a.image_rows) + product.rows_per_strip;
    a.steps = (rows * a.pitch + kDepth - 1) / kDepth;
    const int64_t reach =
        int64_t((g.R - 1) * g.dilation_h / g.stride_h + 1) * a.pitch + (g.S - 1) * g.dilation_w / g.stride_w + kDepth;
    a.plane = round_up(a.steps * kDepth + reach, 32);
    if (a.planes() * a.plane / 32 % 2 == 0) a.plane += 32;  // lest channels meet in the same sets of the L1
    weight_bytes = product.groups * a.sums() * int64_t(sizeof(float));
    const int64_t strips = std::max<int64_t>(1, product.strips());
    const auto share = [](int all, int64_t parts) { return int((all + parts - 1) / std::max<int64_t>(1, parts)); };
    a.slices = int(std::clamp<int64_t>(std::min({kPiecesWanted / product.groups, strips, kSliceBytes / weight_bytes}),
                                       1, kPiecesWanted));
    int64_t wanted = std::max<int64_t>(1, kPiecesWanted / (a.slices * int64_t(product.groups)));
    a.blocks_per_part = share(a.blocks(), std::min<int64_t>(wanted, a.blocks()));
    wanted /= a.parts();  // what is left is shared by channels of dy, where all of them take x apart
    a.pairs_per_share = share(a.pairs(), std::clamp<int64_t>(wanted, 1, a.pairs()));
    weight_bytes *= a.slices;
  }
};

inline CpuPlan wgrad_plan(const Problem& p) {
  const auto tables = std::make_shared<const WgradTables>(p);
  const AmxWgrad& a = tables->a;
  return {.images_per_strip = a.product.images_per_strip,
          .rows_per_strip = a.product.rows_per_strip,
          .pieces = int64_t(a.slices) * a.product.groups * a.shares() * a.parts(),
          .slices = a.slices,
          .workspace = measured([&](Measure& memory) { Shared(memory, tables->weight_bytes, 0); }),
          .scratch = measured([&](Measure& memory) { AmxWgradBench(memory, a); }),
          .tables = tables};
}

inline CpuPlan plan(const Problem& p) {
  if (p.pass == Pass::wgrad) return wgrad_plan(p);
  const auto tables = std::make_shared<Tables>(p);
  const AmxProduct& t = tables->t;
  return {.images_per_strip = t.product.images_per_strip,
          .rows_per_strip = t.product.rows_per_strip,
          .pieces = tables->pieces(),
          .workspace = measured([&](Measure& memory) { Shared(memory, tables->weight_bytes, tables->bias_bytes); }),
          .scratch = measured([&](Measure& memory) { AmxBench(memory, t); }),
          .tables = tables,
          .activates = true};
}

inline CpuRung rung{.can = can, .why_not = why_not, .plan = plan, .best = best};

}  // namespace convlab::amx
