// `direct` up to its kernels: where taps lie in the rows of a panel, and how a problem is cut into strips.
#pragma once
#include "cpu/conv2d/direct/direct.h"
#include "cpu/conv2d/parts.h"
#include "cpu/conv2d/tap_tables.h"

namespace convlab::direct {

constexpr int64_t kPanelBytes = 96 << 10;  // of a strip's source rows: more would leave the L1's neighbourhood
constexpr int64_t kWgradBytes = 64 << 10;  // of a strip's x and of dy for a tile of channels: all taps meet them again
constexpr int kBundledChannels = 16;  // of neighbouring groups, where channels lie innermost: a cache line of them
constexpr int64_t kSlices = 16;  // of wgrad's sums, where there are as many strips

// Cuts the target's rows into strips of about `bytes`
inline void cut(Product& p, int64_t image_bytes, int64_t bytes) {
  const int64_t fit = bytes / std::max<int64_t>(1, image_bytes);
  p.images_per_strip = int(std::clamp<int64_t>(fit, 1, std::max<int64_t>(1, p.images / kSlices)));
  const int64_t strips = fit >= 1 ? 1 : (image_bytes + bytes - 1) / bytes;
  p.rows_per_strip = int(std::max<int64_t>(1, (p.rows.target + strips - 1) / strips));
}

// What kernels take, and all it points to
struct Tables {
  Filters filters;
  TapTables taps;
  std::vector<Part> columns;
  std::vector<ColumnPhase> phases;
  RowProduct rp;
  int64_t weight_bytes, bias_bytes;  // shared

  explicit Tables(const Problem& p)
      : filters(filters_of(p)),
        taps(p.g, p.pass, p.dtype, x_strides(p), y_strides(p), false),
        columns(with_padding(taps.horizontal, p.pass == Pass::dgrad)),
        rp{.product = taps.product, .vertical = taps.vertical} {
    const int lanes = instruction_set().lanes(p.dtype);
    const Axis& across = taps.horizontal;
    Product& product = rp.product;
    rp.panel = panel_of(columns, product.columns.source, 1, lanes, p.pass == Pass::dgrad ? 1 : across.stride);
    for (const Part& c : columns) phases.push_back({c.places, c.taps.data(), c.offsets.data(), int(c.taps.size())});
    rp.phases = phases.data(), rp.phase_count = int(phases.size());
    const int64_t element = sum_bytes(p.dtype), length = rp.panel.length(),
                  width = int64_t(filters.groups) * filters.width * element;
    weight_bytes = width * filters.depth * filters.R * filters.S, bias_bytes = width;
    rp.in_place = across.kernel == 1 && across.stride == 1 && across.pad == 0 && across.outputs == across.size &&
                  across.outputs % lanes == 0 && product.same_type && product.source.w == 1;
    if (p.pass == Pass::wgrad) {
      rp.in_place &= taps.vertical.pad == 0 && rows_met(taps.vertical, product.rows.target) <= product.rows.source;
      const int64_t dy =
          channels_of_tile(product.width) * product.rows.target * round_up(product.columns.target, lanes);
      cut(product, (product.depth * int64_t(product.rows.source) * length + dy) * element, kWgradBytes);
      rp.slices = int(std::clamp<int64_t>(kSlices / product.groups, 1, std::max<int64_t>(1, product.strips())));
      weight_bytes *= rp.slices, bias_bytes = 0;
      return;
    }
    if (product.source.c == 1) rp.bundle = std::clamp(kBundledChannels / product.depth, 1, product.groups);
    cut(product, rp.bundle * product.depth * int64_t(product.rows.source) * length * element, kPanelBytes);
  }
};

inline CpuPlan plan(const Problem& problem) {
  const Problem p = with_rows_of_vectors(problem);
  const auto tables = std::make_shared<const Tables>(p);
  const RowProduct& rp = tables->rp;
  const int lanes = instruction_set().lanes(p.dtype), groups = p.g.groups;
  const bool wgrad = p.pass == Pass::wgrad;
  return {.images_per_strip = rp.product.images_per_strip,
          .rows_per_strip = rp.product.rows_per_strip,
          .pieces = wgrad ? int64_t(rp.slices) * groups : rp.product.strips() * ((groups + rp.bundle - 1) / rp.bundle),
          .slices = rp.slices,
          .workspace = measured([&](Measure& memory) { Shared(memory, tables->weight_bytes, tables->bias_bytes); }),
          .scratch = wgrad ? measured<WgradBench>(p.dtype, rp, lanes) : measured<Bench>(p.dtype, rp, lanes),
          .tables = tables};
}

inline CpuRung rung{.can = can_all, .why_not = no_reason, .plan = plan, .best = always_best};

}  // namespace convlab::direct
