// What a pass of a convolution asks of the CPU's kernels, as plain data. Forward and dgrad are one operation: each
// position of a target sums over taps and channels of a source, and which taps reach which position is said by classes
// (geometry/tap_classes.h). wgrad turns it around: source and target are read, and the weights are summed. Torch-free,
// and for kernels as well.
#pragma once
#include "cpu/workspace.h"
#include "geometry/axis.h"

namespace convlab {

struct Strides {
  int64_t n, c, h, w;  // in elements
};

// Channel `channel` of an image begins `channel` strides.c after the image
CONVLAB_INLINE Strides strides_of(int64_t channels, int64_t rows, int64_t columns, bool channels_last) {
  if (channels_last) return {channels * rows * columns, 1, columns * channels, channels};
  return {channels * rows * columns, rows * columns, columns, 1};
}

// The weights as a pass reads them: vectors of `width` channels a group, each summed over `depth` channels; strides in
// elements
struct Filters {
  int groups, width, depth, R, S;
  int64_t group, lane, depth_stride, tap;
};

// A TapClass as the kernels see it: they include no <vector>.
struct TapClassView {
  const int *taps, *offsets;
  int tap_count;
  const Place* places;
  int place_count;
};

struct AxisView {
  int kernel;  // taps in all
  int source, target;  // places
  const TapClassView* classes = nullptr;
  int count = 0;
};

// Target places at + i at_step, i < count, read source places around from + i from_step
struct Places {
  int count, at, at_step, from, from_step;
};

CONVLAB_INLINE int taps_of_classes(const AxisView& axis) {
  int taps = 0;
  for (int c = 0; c < axis.count; c++) taps += axis.classes[c].tap_count;
  return taps;
}

CONVLAB_INLINE int64_t round_up(int64_t count, int64_t unit) { return (count + unit - 1) / unit * unit; }

// A channel's row of the source is copied between zeros into `phases` rows one behind another, so that the elements
// that neighbouring targets read lie side by side: element u goes to row (u + left) % phases, position (u + left) /
// phases.
struct RowPanel {
  int left, phases, phase_length;
  int64_t length() const { return int64_t(phases) * phase_length; }
};

struct Product {
  int images, groups;
  int depth, width;  // source and target channels, a group
  AxisView rows, columns;
  Strides source, target;
  bool same_type;  // elements are of the type of the sums
  // Pieces of work are strips of target rows, of one image or of several whole ones: one of the two is 1, or all rows
  // are in a strip
  int images_per_strip = 1, rows_per_strip = 1;

  int64_t strips() const {
    return int64_t((images + images_per_strip - 1) / images_per_strip) *
           ((rows.target + rows_per_strip - 1) / rows_per_strip);
  }
  int64_t multiply_adds() const {
    return int64_t(images) * rows.target * columns.target * groups * width * rows.kernel * columns.kernel * depth;
  }
};

}  // namespace convlab
