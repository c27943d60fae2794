// `direct` up to its kernels: where taps lie in the rows of a panel, and how a problem is cut into strips.
#pragma once
#include "cpu/conv2d/direct/direct.h"
#include "cpu/conv2d/parts.h"
#include "cpu/conv2d/tap_tables.h"

namespace convlab::direct {

constexpr int64_t kPanelBytes = 96 << 10;  // of a strip's source rows: more would leave the L1's neighbourhood
constexpr int64_t kWgradBytes = 64 << 10;  // of a strip's x and of dy for a tile of channels: all taps meet them again
constexpr int64_t kFinishedBytes = 128 << 10;  // of a strip's target, which a block's ending meets in the L2
constexpr int kBundledChannels = 16;  // of neighbouring groups, where channels lie innermost: a cache line of them
constexpr int64_t kPiecesWanted = 4;  // a plane read where it lies may be read so many times, by as many threads
constexpr int64_t kSlices = 16;  // of wgrad's sums, where there are as many strips

// Cuts the target's rows into strips of about `bytes`
inline void cut(Product& p, int64_t image_bytes, int64_t bytes) {
  const int64_t fit = bytes / std::max<int64_t>(1, image_bytes);
  p.images_per_strip = int(std::clamp<int64_t>(fit, 1, std::max<int64_t>(1, p.images / kSlices)));
  const int64_t strips = fit >= 1 ? 1 : (image_bytes + bytes - 1) / bytes;
  p.rows_per_strip = int(std::max<int64_t>(1, (p.rows.target + strips - 1) / strips));
}

// Filters as large as the images, one pixel each afterwards, make matrix products: y [N, K] = x [N, F] w [K, F]^T. They
// are what passes of 1 x 1 filters are over one image of K or N channels and a row of F: forward is the wgrad of dy = x and
// x = w, dgrad the forward of x = w and w = dy, wgrad the dgrad of dy = x and w = dy. So everything is read where it lies,
// along F.
inline bool is_matrix_product(const Problem& p) {
  const Conv2d& g = p.g;
  const bool x_last = p.pass == Pass::forward ? p.layouts.first
                      : p.pass == Pass::dgrad ? p.layouts.output
                                              : p.layouts.second,
             w_last = p.pass == Pass::wgrad ? p.layouts.output : p.layouts.second;
  const int64_t columns = int64_t(g.C) * g.R * g.S;
  return g.groups == 1 && g.N > 0 && g.K > 0 && columns > 0 && columns <= INT32_MAX && g.P == 1 && g.Q == 1 &&
         g.R == g.H && g.S == g.W && g.pad_h == 0 && g.pad_w == 0 && (g.R * g.S == 1 || x_last == w_last);
}

inline Problem as_matrix_product(Problem p) {
  if (!is_matrix_product(p)) return p;
  const int columns = p.g.C * p.g.R * p.g.S;
  p.g = {.N = 1,
         .C = p.g.K,
         .H = 1,
         .W = columns,
         .K = p.g.N,
         .R = 1,
         .S = 1,
         .P = 1,
         .Q = columns,
         .stride_h = 1,
         .stride_w = 1,
         .pad_h = 0,
         .pad_w = 0,
         .dilation_h = 1,
         .dilation_w = 1,
         .groups = 1};
  p.pass = p.pass == Pass::forward ? Pass::wgrad : p.pass == Pass::dgrad ? Pass::forward : Pass::dgrad;
  p.channels_last = false, p.layouts = {};
  return p;
}

// Where the weights of a target channel lie apart, or are of another type than sums
inline bool packs(const Problem& p) { return p.pass == Pass::dgrad || !is_sum_type(p.dtype); }

// What kernels take, and all it points to
struct Tables {
  TapTables taps;
  std::vector<Part> columns;
  std::vector<ColumnPhase> phases;
  RowProduct rp;
  int64_t weight_bytes, bias_bytes;  // shared

  explicit Tables(const Problem& p)
      : taps(p.g, p.pass, p.dtype, x_strides(p), y_strides(p), false),
        columns(with_padding(taps.horizontal, p.pass == Pass::dgrad)),
        rp{.product = taps.product, .vertical = taps.vertical, .filters = filters_of(p)} {
    const int lanes = instruction_set().lanes(p.dtype);
    const Axis& across = taps.horizontal;
    Product& product = rp.product;
    rp.panel = panel_of(columns, product.columns.source, 1, lanes, p.pass == Pass::dgrad ? 1 : across.stride);
    for (const Part& c : columns) phases.push_back({c.places, c.taps.data(), c.offsets.data(), int(c.taps.size())});
    rp.phases = phases.data(), rp.phase_count = int(phases.size());
    Filters& f = rp.filters;
    const int64_t element = sum_bytes(p.dtype), length = rp.panel.length(),
                  width = int64_t(f.groups) * f.width * element, weights = width * f.depth * f.R * f.S;
    weight_bytes = packs(p) ? weights + lanes * element : 0, bias_bytes = width;
    if (p.pass == Pass::dgrad) f.lane *= f.depth, f.tap *= f.depth, f.depth_stride = 1;  // packed
    rp.in_place = across.kernel == 1 && across.stride == 1 && across.pad == 0 && across.outputs == across.size &&
                  across.outputs >= lanes && product.same_type && product.source.w == 1;
    if (p.pass == Pass::wgrad) {
      // Rows that are read more than once lie in whole vectors
      rp.in_place &= (across.outputs % lanes == 0 || product.width <= kChannels[0]) && taps.vertical.pad == 0 &&
                     rows_met(taps.vertical, product.rows.target) <= product.rows.source;
      const int64_t dy = channels_of_tile(product.width, sums_of(instruction_set())) * product.rows.target *
                         round_up(product.columns.target, lanes);
      cut(product, (product.depth * int64_t(product.rows.source) * length + dy) * element, kWgradBytes);
      rp.slices = int(std::clamp<int64_t>(kSlices / product.groups, 1, std::max<int64_t>(1, product.strips())));
      weight_bytes = weights * rp.slices, bias_bytes = int64_t(f.depth) * element;
      return;
    }
    if (product.source.c == 1) rp.bundle = std::clamp(kBundledChannels / product.depth, 1, product.groups);
    cut(product, rp.bundle * product.depth * int64_t(product.rows.source) * length * element, kPanelBytes);
    if (product.rows_per_strip < product.rows.target) product.rows_per_strip = in_pairs(product.rows_per_strip);
    if (rp.in_place)
      rp.parts = int(std::clamp<int64_t>(kPiecesWanted / std::max<int64_t>(1, product.strips() * product.groups), 1,
                                         std::max(1, product.width / kChannels[0])));
  }
};

// Strips x bundles of groups x parts of the channels
inline int64_t pieces_of(const RowProduct& rp) {
  return rp.product.strips() * ((rp.product.groups + rp.bundle - 1) / rp.bundle) * rp.parts;
}

// With strips whose targets stay in the L2 until a block's ending has met them; rows: of its windows
inline RowProduct finished(RowProduct rp, int rows, int64_t element) {
  Product& p = rp.product;
  const int64_t row = int64_t(p.width) * p.columns.target * element, fit = kFinishedBytes / std::max<int64_t>(1, row);
  if (fit < p.rows.target)
    p.images_per_strip = 1, p.rows_per_strip = int(std::clamp<int64_t>(fit / rows * rows, rows, p.rows_per_strip));
  else p.images_per_strip = int(std::clamp<int64_t>(fit / p.rows.target, 1, p.images_per_strip));
  rp.finished_bytes = p.images_per_strip * p.rows_per_strip * row;
  return rp;
}

inline CpuPlan plan(const Problem& problem) {
  const Problem p = with_rows_of_vectors(as_matrix_product(problem), true);
  const auto tables = std::make_shared<const Tables>(p);
  const RowProduct& rp = tables->rp;
  const int lanes = instruction_set().lanes(p.dtype);
  const bool wgrad = p.pass == Pass::wgrad;
  return {.images_per_strip = rp.product.images_per_strip,
          .rows_per_strip = rp.product.rows_per_strip,
          .pieces = wgrad ? int64_t(rp.slices) * rp.product.groups : pieces_of(rp),
          .slices = rp.slices,
          .workspace = measured([&](Measure& memory) { Shared(memory, tables->weight_bytes, tables->bias_bytes); }),
          .scratch = wgrad ? measured<WgradBench>(p.dtype, rp, lanes) : measured<Bench>(p.dtype, rp, lanes),
          .tables = tables,
          .epilogue = is_matrix_product(problem) ? Epilogue::none
                      : p.g.P == problem.g.P     ? Epilogue::windows
                                                 : Epilogue::activation,
          .activates = is_sum_type(p.dtype) && !is_matrix_product(problem)};
}

inline CpuRung rung{.can = can_all, .why_not = no_reason, .plan = plan, .best = always_best};

}  // namespace convlab::direct
