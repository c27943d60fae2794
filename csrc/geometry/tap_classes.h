// The positions of an output along one dimension, sorted by the taps that reach them. Within a class all positions have
// the same taps, and the taps lie the same way around a base position of the source: no test and no padding is left for
// the loops over a class.
//
//   forward   position p, tap r: source h = p stride - pad + r dilation where that lies in x. One class is of the
//             windows that lie inside, and there is one for each way to hang over an edge.
//   dgrad     position h, tap r: source p = (h + pad - r dilation) / stride where that is whole and lies in dy. The
//             same for each residue of h modulo the stride; what no tap reaches is a class without taps.
//
// Torch-free.
#pragma once
#include <vector>

#include "geometry/axis.h"

namespace convlab {

struct TapClass {
  std::vector<int> taps, offsets;  // of equal length
  std::vector<Place> places;
};

// source_of(position, tap): a position of the source, or -1
template <class SourceOf> std::vector<TapClass> tap_classes(int places, int taps, SourceOf source_of) {
  std::vector<TapClass> classes;
  std::vector<int> reached, offsets;
  reached.reserve(size_t(taps)), offsets.reserve(size_t(taps));
  for (int at = 0; at < places; at++) {
    reached.clear(), offsets.clear();
    int base = 0;
    for (int tap = 0; tap < taps; tap++) {
      const int source = source_of(at, tap);
      if (source < 0) continue;
      if (reached.empty()) base = source;
      reached.push_back(tap), offsets.push_back(source - base);
    }
    size_t i = 0;
    while (i < classes.size() && !(classes[i].taps == reached && classes[i].offsets == offsets)) i++;
    if (i == classes.size()) {
      classes.push_back({reached, offsets, {}});
      classes[i].places.reserve(size_t(places - at));
    }
    classes[i].places.push_back({at, base});
  }
  return classes;
}

// Positions of y, read from x
inline std::vector<TapClass> forward_classes(const Axis& a) {
  return tap_classes(a.outputs, a.kernel, [&](int p, int r) {
    const int h = p * a.stride - a.pad + r * a.dilation;
    return h < a.size ? h : -1;
  });
}

// Positions of x, read from y
inline std::vector<TapClass> dgrad_classes(const Axis& a) {
  return tap_classes(a.size, a.kernel, [&](int h, int r) {
    const int p = h + a.pad - r * a.dilation;
    return p >= 0 && p % a.stride == 0 && p / a.stride < a.outputs ? p / a.stride : -1;
  });
}

}  // namespace convlab
