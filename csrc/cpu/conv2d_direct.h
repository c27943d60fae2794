// direct on the CPU, up to the kernels of csrc/cpu/isa: where taps lie in the rows of a panel, how a problem is cut
// into strips, and the packing of weights.
#pragma once
#include <algorithm>

#include "cpu/classes.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"

namespace convlab::direct {

constexpr int64_t kPanelBytes = 96 << 10;  // of a strip's source rows: more would leave the first cache's neighbourhood
constexpr int64_t kWgradBytes =
    64 << 10;  // of a strip's x and of dy for a tile of channels, which all taps meet again and again
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
    c.in_place = a.kernel == 1 && a.stride == 1 && a.pad == 0 && a.outputs == a.size && a.outputs % lanes == 0;
    c.add(0, 1, a.outputs);
    for (int s = 0; s < a.kernel; s++)
      c.reach(s, s * a.dilation % a.stride * c.panel.phase_length + s * a.dilation / a.stride);
    return c.viewed();
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
    c.in_place = a.kernel == 1 && a.stride == 1 && a.pad == 0 && a.outputs == a.size && a.outputs % lanes == 0;
    c.panel = {-least, 1, -least + most + (longest + lanes - 1) / lanes * lanes};
    return c.viewed();
  }

 private:
  void add(int first, int step, int count) {
    phases.push_back({first, step, count, nullptr, nullptr, 0});
    taps.emplace_back(), places.emplace_back();
  }
  void reach(int tap, int place) { taps.back().push_back(tap), places.back().push_back(place); }
  Columns viewed() {
    for (size_t i = 0; i < phases.size(); i++)
      phases[i].taps = taps[i].data(), phases[i].places = places[i].data(), phases[i].tap_count = int(taps[i].size());
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

inline int64_t work_of(const Product& p) {
  return int64_t(p.images) * p.rows.target * p.columns.target * p.groups * p.width * p.rows.kernel * p.columns.kernel *
         p.depth;
}

// w as Filters see it -> [groups, tiles of channels, depth, R S, channels]
template <class T> void pack_weights(const ConvFunctions& functions, const Filters& f, const T* w, acc_t<T>* packed) {
  for (int group = 0; group < f.groups; group++)
    for (int k = 0, channels; k < f.width; k += channels) {
      channels = functions.channels_of_tile(f.width - k);
      for (int d = 0; d < f.depth; d++)
        for (int tap = 0; tap < f.R * f.S; tap++)
          for (int i = 0; i < channels; i++)
            *packed++ = acc_t<T>(w[group * f.group + (k + i) * f.lane + d * f.depth_stride + tap * f.tap]);
    }
}

// forward, or dgrad with source and target changed over
template <class T>
void run(const CpuKernels& k, DType dtype, Product p, const Columns& columns, const Filters& f, const T* source,
         const T* w, const T* bias, T* target) {
  using A = acc_t<T>;
  const ConvFunctions& functions = k.conv[int(dtype)];
  const int64_t lanes = k.lanes(dtype), length = columns.panel.length();
  const int bundle = p.source.c == 1 ? std::clamp(kBundledChannels / p.depth, 1, p.groups) : 1,
            channels = bundle * p.depth;
  cut(p, channels * int64_t(p.rows.source) * length * int64_t(sizeof(A)), kPanelBytes);
  const RowProduct rp{p,
                      columns.panel,
                      columns.phases.data(),
                      int(columns.phases.size()),
                      bundle,
                      columns.in_place && sizeof(T) == sizeof(A) && p.source.w == 1};

  const int64_t weights = int64_t(f.groups) * f.width * f.depth * f.R * f.S;
  const CpuScratch memory(CpuScratch::shared, (weights + int64_t(f.groups) * f.width) * int64_t(sizeof(A)));
  A *const packed = reinterpret_cast<A*>(memory.get()), *const packed_bias = packed + weights;
  pack_weights(functions, f, w, packed);
  for (int64_t i = 0; i < int64_t(f.groups) * f.width; i++) packed_bias[i] = bias ? A(bias[i]) : A(0);

  const int64_t slots = int64_t(p.images_per_strip) * p.rows_per_strip *
                        ((p.columns.target + lanes - 1) / lanes + int64_t(columns.phases.size()));
  const int64_t panel = int64_t(p.images_per_strip) * channels * p.rows.source * length + lanes;
  const int64_t turned = channels * (p.columns.source + lanes) + lanes;
  const int64_t terms =
      int64_t(f.depth) * taps_of_classes(p.rows) * taps_of_phases(rp) * 16 + (p.rows.count * rp.phase_count + 1) * 8;
  const int64_t bytes = terms + slots * 24 + (panel + turned) * int64_t(sizeof(A)) + 6 * kCacheLine,
                pieces = p.strips() * ((p.groups + bundle - 1) / bundle);
  parallel_over(pieces, work_of(p) / pieces, [&](int64_t begin, int64_t end) {
    const CpuScratch own(CpuScratch::own, bytes);
    functions.direct(rp, source, packed, packed_bias, target, begin, end, own.get());
  });
}

template <class T>
void wgrad(const CpuKernels& k, DType dtype, Product p, const Columns& columns, const Filters& f, const Axis& rows,
           const T* dy, const T* x, T* dw) {
  using A = acc_t<T>;
  const ConvFunctions& functions = k.conv[int(dtype)];
  const int64_t lanes = k.lanes(dtype), length = columns.panel.length(),
                row = (p.columns.target + lanes - 1) / lanes * lanes;
  cut(p,
      (p.depth * int64_t(p.rows.source) * length + int64_t(functions.channels_of_tile(p.width)) * p.rows.target * row) *
          int64_t(sizeof(A)),
      kWgradBytes);
  const RowProduct rp{p, columns.panel, columns.phases.data(), int(columns.phases.size()), 1, false};

  const int64_t taps = int64_t(f.depth) * f.R * f.S, all = f.groups * f.width * taps;
  const int slices = int(std::clamp<int64_t>(kSlices / p.groups, 1, std::max<int64_t>(1, p.strips())));
  const int64_t x_rows = int64_t(p.rows_per_strip - 1) * rows.stride + int64_t(rows.kernel - 1) * rows.dilation + 1;
  const int64_t elements = p.width * taps * lanes +
                           p.images_per_strip * (p.width * p.rows_per_strip * row + p.depth * x_rows * length) +
                           p.depth * (p.columns.source + lanes) + 2 * lanes;
  const int64_t bytes = taps * 8 + p.rows_per_strip * row / lanes * 8 + elements * int64_t(sizeof(A)) + 7 * kCacheLine,
                pieces = int64_t(slices) * p.groups;
  const CpuScratch memory(CpuScratch::shared, slices * all * int64_t(sizeof(A)));
  A* const partial = reinterpret_cast<A*>(memory.get());
  parallel_over(pieces, work_of(p) / pieces, [&](int64_t begin, int64_t end) {
    const CpuScratch own(CpuScratch::own, bytes);
    functions.direct_wgrad(rp, rows, slices, dy, x, partial, begin, end, own.get());
  });
  for (int64_t i = 0; i < all; i++) {  // [groups, width, depth, R S]
    A sum = 0;
    for (int slice = 0; slice < slices; slice++) sum += partial[slice * all + i];
    const int64_t tap = i % (f.R * f.S), d = i / (f.R * f.S) % f.depth, channel = i / taps;
    dw[channel / f.width * f.group + channel % f.width * f.lane + d * f.depth_stride + tap * f.tap] = T(sum);
  }
}

}  // namespace convlab::direct
