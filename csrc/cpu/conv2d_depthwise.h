// depthwise on the CPU, up to the kernels of csrc/cpu/isa: where taps lie, which of them share loads, how a problem is
// cut into strips and slices, and the order of packing and computing.
#pragma once
#include <algorithm>
#include <numeric>
#include <vector>

#include "cpu/classes.h"
#include "cpu/depthwise.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"

namespace convlab::depthwise {

constexpr int64_t kPanelBytes = 24 << 10;  // of a strip between zeros: it stays in the first cache, beside the target
constexpr int64_t kCacheSets = 64;  // of the first cache
constexpr int64_t kSourceWays = 8;  // of it, for pixels that tiles read and write where they lie
constexpr int64_t kPiecesWanted = 16;  // enough to share among a few threads; of wgrad's slices, no more than these

// Places and taps of one axis; offsets, which rise, count places of the source from `from`
struct Part {
  DepthwisePlaces places;
  std::vector<int> taps, offsets;
};

// Where padding costs nothing: runs of evenly spaced places of a class
inline std::vector<Part> without_padding(const std::vector<TapClass>& classes) {
  std::vector<Part> parts;
  for (const TapClass& c : classes) {
    std::vector<int> taps = c.taps, offsets = c.offsets;
    if (offsets.size() > 1 && offsets[1] < 0)
      std::reverse(taps.begin(), taps.end()), std::reverse(offsets.begin(), offsets.end());
    const int before = offsets.empty() ? 0 : offsets.front(), after = offsets.empty() ? -1 : offsets.back();
    for (size_t i = 0, end; i < c.places.size(); i = end) {
      const Place first = c.places[i], next = c.places[std::min(i + 1, c.places.size() - 1)];
      const int at_step = std::max(1, next.at - first.at), from_step = next.base - first.base;
      for (end = i + 1; end < c.places.size(); end++)
        if (c.places[end].at - c.places[end - 1].at != at_step ||
            c.places[end].base - c.places[end - 1].base != from_step)
          break;
      parts.push_back({{int(end - i), first.at, at_step, first.base, from_step, before, after}, taps, offsets});
    }
  }
  return parts;
}

// Where zeros stand for padding. forward: place p meets tap r at p stride - pad + r dilation
inline std::vector<Part> with_padding(const Axis& a) {
  Part part{{a.outputs, 0, 1, -a.pad, a.stride, 0, (a.kernel - 1) * a.dilation}, {}, {}};
  for (int r = 0; r < a.kernel; r++) part.taps.push_back(r), part.offsets.push_back(r * a.dilation);
  return {part};
}

// dgrad: places h = first, first + stride, ... meet tap r at p = (h + pad - r dilation) / stride, where that is whole
inline std::vector<Part> with_padding_backwards(const Axis& a) {
  std::vector<Part> parts;
  for (int first = 0; first < std::min(a.stride, a.size); first++) {
    Part part{{(a.size - first + a.stride - 1) / a.stride, first, a.stride, 0, 1, 0, -1}, {}, {}};
    for (int r = a.kernel - 1; r >= 0; r--) {
      const int p = first + a.pad - r * a.dilation;
      if (p % a.stride == 0) part.taps.push_back(r), part.offsets.push_back(p / a.stride);
    }
    if (!part.taps.empty()) part.places.before = part.offsets.front(), part.places.after = part.offsets.back();
    parts.push_back(part);
  }
  return parts;
}

inline int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

// A row of the source between zeros, whose first element begins a vector of `unit` elements, with room for whole
// vectors. Afterwards the parts' offsets are places of the row.
inline RowPanel panel_of(std::vector<Part>& parts, int columns, int unit, int phases) {
  int least = 0;
  for (const Part& part : parts)
    if (!part.taps.empty()) least = std::min(least, part.places.from + part.places.before);
  const int left = int(round_up(-least, int64_t(unit) * phases));
  int64_t length = (left + round_up(columns, int64_t(unit) * phases)) / phases;
  for (const Part& part : parts)
    length = std::max(length, (left + part.places.from + part.places.after) / phases +
                                  (round_up(part.places.count, unit) - 1) * part.places.from_step / phases + 1);
  const RowPanel panel{left, phases, int(round_up(length, unit))};
  for (Part& part : parts) {
    for (int& offset : part.offsets) {
      const int place = left + part.places.from + offset;
      offset = place % phases * panel.phase_length + place / phases;
    }
    part.places.from = 0, part.places.from_step /= phases;
  }
  return panel;
}

// Owns what a Depthwise points to
struct Plan {
  Depthwise d{};
  std::vector<DepthwiseBlock> blocks;
  std::vector<DepthwiseTap> taps;

  void add(const std::vector<Part>& rows, const std::vector<Part>& columns, int S) {
    size_t row_taps = 0, column_taps = 0;
    for (const Part& r : rows) row_taps += r.taps.size();
    for (const Part& c : columns) column_taps += c.taps.size();
    blocks.reserve(rows.size() * columns.size()), taps.reserve(row_taps * column_taps);
    for (const Part& r : rows)
      for (const Part& c : columns) {
        const bool down = d.planes || r.places.count > c.places.count;
        blocks.push_back({r.places, c.places, down,
                          down ? taps_of(r, S, d.row, c, 1, d.pixel) : taps_of(c, 1, d.pixel, r, S, d.row)});
      }
    d.blocks = blocks.data(), d.block_count = int(blocks.size());
  }

 private:
  // weight: from a tap to the next one on the axis; step: elements between places of the source
  DepthwiseTaps taps_of(const Part& along, int weight, int64_t step, const Part& across, int across_weight,
                        int64_t across_step) {
    const int n = int(along.taps.size()), between = n > 1 ? along.taps[1] - along.taps[0] : 0;
    const auto neighbours = [&](int i) {  // tap i and the next
      return along.offsets[i + 1] - along.offsets[i] == along.places.from_step &&
             along.taps[i + 1] - along.taps[i] == between;
    };
    const auto three = [&](int i) { return i + 2 < n && neighbours(i) && neighbours(i + 1); };
    DepthwiseTaps all{taps.data() + taps.size(), 0, 0, int64_t(between) * weight};
    for (const bool triples : {true, false})
      for (size_t j = 0; j < across.taps.size(); j++)
        for (int i = 0; i < n; i += three(i) ? 3 : 1) {
          if (three(i) != triples) continue;
          taps.push_back({along.offsets[i] * step + across.offsets[j] * across_step,
                          int64_t(along.taps[i]) * weight + int64_t(across.taps[j]) * across_weight});
          (triples ? all.triples : all.singles)++;
        }
    return all;
  }
};

// Whether vectors run over channels: they lie innermost in the target. Otherwise they run along rows.
inline bool over_channels(const Conv2d& g, const Strides& target) { return target.c == 1 && g.C > 1; }

// Whether the first cache holds the rows that a row of the target needs, of one vector a pixel: pixels a multiple of
// many lines apart share few of its sets.
inline bool stays_in_cache(int64_t pixel_bytes, int64_t pixels) {
  const int64_t lines = std::max<int64_t>(1, pixel_bytes / kCacheLine);
  return pixels * std::gcd(lines, kCacheSets) <= kCacheSets * kSourceWays;
}

// A pass; backwards: dgrad. lanes: of a vector of sums, which are elements of so many bytes; same_type: tensors hold
// such elements too
inline Plan plan_of(const Conv2d& g, bool backwards, bool planes, const Strides& source, const Strides& target,
                    int lanes, int64_t element, bool same_type) {
  Plan plan;
  Depthwise& d = plan.d;
  const Axis rows = rows_of(g), columns = columns_of(g);
  d.images = g.N, d.channels = g.C, d.kernel_taps = g.R * g.S;
  d.source_rows = backwards ? g.P : g.H, d.source_columns = backwards ? g.Q : g.W;
  d.target_rows = backwards ? g.H : g.P, d.target_columns = backwards ? g.W : g.Q;
  d.source = source, d.target = target, d.planes = planes;

  const bool dense = g.stride_h == 1 && g.stride_w == 1 && g.dilation_h == 1 && g.dilation_w == 1;
  if (planes && dense && g.R == g.S && (g.R == 3 || g.R == 5)) {
    d.window = g.R, d.flipped = backwards;
    d.row_offset = backwards ? g.pad_h - (g.R - 1) : -g.pad_h,
    d.column_offset = backwards ? g.pad_w - (g.S - 1) : -g.pad_w;
  }
  if (planes) {
    d.source_in_place = d.window && same_type && source.w == 1;
    d.target_in_place = same_type && target.w == 1 && (!backwards || g.stride_w == 1);
  } else {
    const bool vectors = same_type && g.C >= lanes;
    d.source_in_place =
        vectors && source.c == 1 && stays_in_cache(source.w * element, int64_t(d.source_columns) * (g.R + 1));
    d.target_in_place = vectors && target.c == 1;
  }
  if (!planes && d.source_in_place) {
    d.row = source.h, d.pixel = source.w;
    plan.add(without_padding(backwards ? dgrad_classes(rows) : forward_classes(rows)),
             without_padding(backwards ? dgrad_classes(columns) : forward_classes(columns)), g.S);
  } else {
    std::vector<Part> in_columns = backwards ? with_padding_backwards(columns) : with_padding(columns);
    d.panel = panel_of(in_columns, d.source_columns, planes ? lanes : 1, planes && !backwards ? g.stride_w : 1);
    d.pixel = planes ? 1 : lanes, d.row = d.panel.length() * d.pixel;
    plan.add(backwards ? with_padding_backwards(rows) : with_padding(rows), in_columns, g.S);
  }

  const int64_t pieces = std::max<int64_t>(1, g.N * (planes ? g.C : (g.C + lanes - 1) / lanes));
  const int64_t strips =
      std::max((kPiecesWanted + pieces - 1) / pieces,
               d.source_in_place ? 1 : (d.source_rows * d.row * element + kPanelBytes - 1) / kPanelBytes);
  d.rows_per_strip = int(std::max<int64_t>(1, (d.target_rows + strips - 1) / std::max<int64_t>(1, strips)));
  return plan;
}

// Rows of the source that any strip reaches, at most
inline int64_t rows_of_strips(const Depthwise& d) {
  int most = 0;
  for (int row = 0; row < d.target_rows; row += d.rows_per_strip)
    most = std::max(most, rows_reached(d, row, std::min(d.target_rows, row + d.rows_per_strip)).count);
  return most;
}

// What the kernels put into their scratch, from above
inline int64_t scratch_bytes(const Depthwise& d, int lanes, int64_t element) {
  const int64_t target =
      d.rows_per_strip * (d.planes ? round_up(d.target_columns, lanes) : int64_t(d.target_columns) * lanes);
  const int64_t source = !d.planes && d.source_in_place ? 0 : rows_of_strips(d) * d.row;
  return ((4 * d.kernel_taps + 2) * int64_t(lanes) + target + source) * element;
}

// forward, or dgrad with source and target changed over
template <class T>
void run(const CpuKernels& k, DType dtype, const Conv2d& g, bool backwards, const Strides& ss, const Strides& ts,
         const T* source, const T* w, const T* bias, T* target) {
  using A = acc_t<T>;
  const ConvFunctions& functions = k.conv[int(dtype)];
  const int lanes = k.lanes(dtype), taps = g.R * g.S;
  const int64_t vectors = (g.C + lanes - 1) / lanes, padded = vectors * lanes;
  const Plan plan = plan_of(g, backwards, !over_channels(g, ts), ss, ts, lanes, sizeof(A), sizeof(T) == sizeof(A));
  const Depthwise& d = plan.d;

  const CpuScratch memory(CpuScratch::shared, (taps + 1) * padded * int64_t(sizeof(A)));
  A *const weights = reinterpret_cast<A*>(memory.get()), *const packed_bias = weights + taps * padded;
  for (int64_t c = 0; c < padded; c++) packed_bias[c] = bias && c < g.C ? A(bias[c]) : A(0);
  if (d.planes) {
    for (int64_t i = 0; i < int64_t(g.C) * taps; i++) weights[i] = A(w[i]);
  } else {
    functions.pack_weights({1, g.C, 1, g.R, g.S, 0, taps, taps, 1}, w, weights, 0, vectors);
    if (g.C > lanes)
      functions.pack_weights({1, lanes, 1, g.R, g.S, 0, taps, taps, 1}, w + (g.C - lanes) * int64_t(taps),
                             weights + (vectors - 1) * taps * lanes, 0, 1);
  }

  const int64_t bytes = scratch_bytes(d, lanes, sizeof(A)),
                pieces = g.N * d.strips_per_image() * (d.planes ? g.C : vectors);
  parallel_over(pieces, int64_t(d.rows_per_strip) * d.target_columns * taps * (d.planes ? 1 : lanes),
                [&](int64_t begin, int64_t end) {
                  const CpuScratch own(CpuScratch::own, bytes);
                  functions.depthwise(d, source, weights, packed_bias, target, begin, end, own.get());
                });
}

template <class T>
void wgrad(const CpuKernels& k, DType dtype, const Conv2d& g, const Strides& xs, const Strides& ys, const T* dy,
           const T* x, T* dw) {
  using A = acc_t<T>;
  const ConvFunctions& functions = k.conv[int(dtype)];
  const int lanes = k.lanes(dtype), taps = g.R * g.S;
  const int64_t vectors = (g.C + lanes - 1) / lanes;
  Plan plan = plan_of(g, false, !over_channels(g, xs), xs, ys, lanes, sizeof(A), sizeof(T) == sizeof(A));
  Depthwise& d = plan.d;
  const int64_t strips = g.N * d.strips_per_image();
  const int slices =
      int(std::clamp<int64_t>(d.planes ? kPiecesWanted / g.C : kPiecesWanted, 1, std::max<int64_t>(1, strips)));
  const int64_t wanted = std::min(vectors, (kPiecesWanted + slices - 1) / slices);
  d.vectors_per_piece = int((vectors + wanted - 1) / wanted);

  const int64_t slice = d.planes ? int64_t(g.C) * taps : vectors * taps * lanes;
  const int64_t pieces = slices * (d.planes ? g.C : (vectors + d.vectors_per_piece - 1) / d.vectors_per_piece);
  const CpuScratch memory(CpuScratch::shared, slices * slice * int64_t(sizeof(A)));
  A* const sums = reinterpret_cast<A*>(memory.get());
  const int64_t bytes = scratch_bytes(d, lanes, sizeof(A)), work = int64_t(g.N) * g.P * g.Q * taps * g.C / pieces;
  parallel_over(pieces, work, [&](int64_t begin, int64_t end) {
    const CpuScratch own(CpuScratch::own, bytes);
    functions.depthwise_wgrad(d, slices, dy, x, sums, begin, end, own.get());
  });
  if (!d.planes)
    return functions.unpack_weights({1, g.C, 1, g.R, g.S, 0, taps, taps, 1}, sums, slices, slice, dw, 0, vectors);
  for (int64_t i = 0; i < slice; i++) {
    A sum = 0;
    for (int s = 0; s < slices; s++) sum += sums[s * slice + i];
    dw[i] = T(sum);
  }
}

}  // namespace convlab::depthwise
