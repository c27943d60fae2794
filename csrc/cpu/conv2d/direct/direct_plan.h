// `direct` up to its kernels: where taps lie in the rows of a panel, and how a problem is cut into strips.
#pragma once
#include <algorithm>

#include "cpu/conv2d/direct/direct.h"
#include "cpu/conv2d/tap_tables.h"

namespace convlab::direct {

constexpr int64_t kPanelBytes = 96 << 10;  // of a strip's source rows: more would leave the L1's neighbourhood
constexpr int64_t kWgradBytes = 64 << 10;  // of a strip's x and of dy for a tile of channels: all taps meet them again
constexpr int kBundledChannels = 16;  // of neighbouring groups, where channels lie innermost: a cache line of them
constexpr int64_t kSlices = 16;  // of wgrad's sums, where there are as many strips

// The columns of a product as rows of a panel; `lanes` a vector
struct Columns {
  RowPanel panel;
  std::vector<std::vector<int>> taps, places;
  std::vector<ColumnPhase> phases;
  bool in_place = false;

  static Columns forward(const Axis& a, int lanes) {
    Columns c;
    const int reach = (a.kernel - 1) * a.dilation;
    c.panel = {a.pad, a.stride, (a.outputs + lanes - 1) / lanes * lanes + reach / a.stride + 1};
    c.add(0, 1, a.outputs);
    for (int s = 0; s < a.kernel; s++)
      c.reach(s, s * a.dilation % a.stride * c.panel.phase_length + s * a.dilation / a.stride);
    return c.viewed(a, lanes);
  }

  // Targets v = first, first + stride, ... of x meet tap s at dy's q = (v + pad - s dilation) / stride, where that is
  // whole
  static Columns dgrad(const Axis& a, int lanes) {
    Columns c;
    int least = 0, most = 0;
    for (int first = 0; first < std::min(a.stride, a.size); first++) {
      c.add(first, a.stride, (a.size - first + a.stride - 1) / a.stride);
      for (int s = 0; s < a.kernel; s++) {
        const int q = first + a.pad - s * a.dilation;
        if (q % a.stride != 0) continue;
        c.reach(s, q / a.stride);
        least = std::min(least, q / a.stride), most = std::max(most, q / a.stride);
      }
    }
    for (auto& places : c.places)
      for (int& place : places) place -= least;
    const int longest = c.phases.empty() ? 0 : c.phases[0].count;
    c.panel = {-least, 1, -least + most + (longest + lanes - 1) / lanes * lanes};
    return c.viewed(a, lanes);
  }

 private:
  void add(int first, int step, int count) {
    phases.push_back({first, step, count, nullptr, nullptr, 0});
    taps.emplace_back(), places.emplace_back();
  }
  void reach(int tap, int place) { taps.back().push_back(tap), places.back().push_back(place); }
  Columns viewed(const Axis& a, int lanes) {
    for (size_t i = 0; i < phases.size(); i++)
      phases[i].taps = taps[i].data(), phases[i].places = places[i].data(), phases[i].tap_count = int(taps[i].size());
    in_place = a.kernel == 1 && a.stride == 1 && a.pad == 0 && a.outputs == a.size && a.outputs % lanes == 0;
    return std::move(*this);
  }
};

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
  Columns columns;
  RowProduct rp;
  int64_t weight_bytes, bias_bytes;  // shared

  explicit Tables(const Problem& p)
      : filters(filters_of(p)),
        taps(p.g, p.pass, false),
        columns(
            (taps.backwards ? Columns::dgrad : Columns::forward)(taps.horizontal, instruction_set().lanes(p.dtype))),
        rp{.product = taps.product(p.dtype, x_strides(p), y_strides(p)),
           .vertical = taps.vertical,
           .panel = columns.panel,
           .phases = columns.phases.data(),
           .phase_count = int(columns.phases.size())} {
    const int lanes = instruction_set().lanes(p.dtype);
    const int64_t element = sum_bytes(p.dtype), length = columns.panel.length();
    Product& product = rp.product;
    const int64_t width = int64_t(filters.groups) * filters.width * element;
    weight_bytes = width * filters.depth * filters.R * filters.S, bias_bytes = width;
    if (p.pass == Pass::wgrad) {
      const int64_t dy =
          channels_of_tile(product.width) * product.rows.target * round_up(product.columns.target, lanes);
      cut(product, (product.depth * int64_t(product.rows.source) * length + dy) * element, kWgradBytes);
      rp.slices = int(std::clamp<int64_t>(kSlices / product.groups, 1, std::max<int64_t>(1, product.strips())));
      weight_bytes *= rp.slices, bias_bytes = 0;
      return;
    }
    if (product.source.c == 1) rp.bundle = std::clamp(kBundledChannels / product.depth, 1, product.groups);
    cut(product, rp.bundle * product.depth * int64_t(product.rows.source) * length * element, kPanelBytes);
    rp.in_place = columns.in_place && product.same_type && product.source.w == 1;
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
          .scratch = measured(p.dtype,
                              [&](Measure& memory, auto sum) {
                                using A = decltype(sum);
                                if (wgrad) lay_out_wgrad<A>(memory, rp, lanes);
                                else lay_out<A>(memory, rp, lanes);
                              }),
          .tables = tables};
}

inline CpuRung rung{.can = can_all, .why_not = no_reason, .plan = plan, .best = always_best};

}  // namespace convlab::direct
