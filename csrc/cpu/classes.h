// Tap classes and strides as the kernels take them.
#pragma once
#include <vector>

#include "cpu/product.h"
#include "geometry/tap_classes.h"

namespace convlab {

// The element at which channel `channel` of an image begins is `channel` strides.c further
inline Strides strides_of(int64_t channels, int64_t rows, int64_t columns, bool channels_last) {
  if (channels_last) return {channels * rows * columns, 1, columns * channels, channels};
  return {channels * rows * columns, rows * columns, columns, 1};
}

struct Classes {
  std::vector<TapClass> classes;
  std::vector<TapClassView> views;

  explicit Classes(std::vector<TapClass> all) : classes(std::move(all)) {
    for (const TapClass& c : classes)
      views.push_back({c.taps.data(), c.offsets.data(), int(c.taps.size()), c.places.data(), int(c.places.size())});
  }
  AxisView view(int kernel, int source, int target) const {
    return {views.data(), int(views.size()), kernel, source, target};
  }
};

}  // namespace convlab
