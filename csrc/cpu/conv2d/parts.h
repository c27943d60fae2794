// One axis of a target in parts: places evenly spaced, which the same taps reach, and where these lie in a row of the
// source. Torch-free.
#pragma once
#include <algorithm>

#include "cpu/conv2d/product.h"
#include "geometry/tap_classes.h"

namespace convlab {

// offsets count places of the source from places.from
struct Part {
  Places places;
  std::vector<int> taps, offsets;
};

// Where padding costs nothing: runs of evenly spaced places of a class
inline std::vector<Part> without_padding(const std::vector<TapClass>& classes) {
  std::vector<Part> parts;
  for (const TapClass& c : classes)
    for (size_t i = 0, end; i < c.places.size(); i = end) {
      const Place first = c.places[i], next = c.places[std::min(i + 1, c.places.size() - 1)];
      const int at_step = std::max(1, next.at - first.at), from_step = next.base - first.base;
      for (end = i + 1; end < c.places.size(); end++)
        if (c.places[end].at - c.places[end - 1].at != at_step ||
            c.places[end].base - c.places[end - 1].base != from_step)
          break;
      parts.push_back({{int(end - i), first.at, at_step, first.base, from_step}, c.taps, c.offsets});
    }
  return parts;
}

// Where zeros stand for padding. forward: place p meets tap r at p stride - pad + r dilation. dgrad: places h = first,
// first + stride, ... meet tap r at p = (h + pad - r dilation) / stride, where that is whole
inline std::vector<Part> with_padding(const Axis& a, bool backwards) {
  std::vector<Part> parts;
  for (int first = 0; first < (backwards ? std::min(a.stride, a.size) : 1); first++) {
    Part part = backwards ? Part{{(a.size - first + a.stride - 1) / a.stride, first, a.stride, 0, 1}, {}, {}}
                          : Part{{a.outputs, 0, 1, -a.pad, a.stride}, {}, {}};
    for (int r = 0; r < a.kernel; r++) {
      const int p = backwards ? first + a.pad - r * a.dilation : r * a.dilation;
      if (!backwards || p % a.stride == 0) part.taps.push_back(r), part.offsets.push_back(backwards ? p / a.stride : p);
    }
    parts.push_back(part);
  }
  return parts;
}

// Where offsets fall, with their order reversed
inline std::vector<Part> rising(std::vector<Part> parts) {
  for (Part& part : parts)
    if (part.offsets.size() > 1 && part.offsets[1] < part.offsets[0])
      std::reverse(part.taps.begin(), part.taps.end()), std::reverse(part.offsets.begin(), part.offsets.end());
  return parts;
}

// A row of the source between zeros, whose first element begins a vector of `unit` elements, with room for whole
// vectors of `lanes` targets. Afterwards the parts' offsets are places of the row.
inline RowPanel panel_of(std::vector<Part>& parts, int columns, int unit, int lanes, int phases) {
  int least = 0;
  for (const Part& part : parts)
    for (int offset : part.offsets) least = std::min(least, part.places.from + offset);
  const int whole = unit * phases, left = unit > 1 ? int(round_up(-least, whole)) : -least;
  int64_t length = (left + round_up(columns, whole)) / phases;
  for (const Part& part : parts)
    for (int offset : part.offsets)
      length = std::max(length, (left + part.places.from + offset) / phases +
                                    (round_up(part.places.count, lanes) - 1) * part.places.from_step / phases + 1);
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

}  // namespace convlab
