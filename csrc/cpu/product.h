// What a pass of a convolution asks of the CPU's kernels, as plain data. Forward and dgrad are one operation: each
// place of a target sums over taps and channels of a source, and which taps reach which place is said by classes
// (geometry/tap_classes.h). wgrad turns it around: source and target are read, and the weights are summed. Torch-free.
#pragma once
#include <cstdint>

#include "cpu/workspace.h"
#include "geometry/axis.h"

namespace convlab {

struct Strides {
  int64_t n, c, h, w;  // in elements
};

// The weights as a pass reads them: vectors of `width` channels a group, each summed over `depth` channels; strides in
// elements
struct Filters {
  int groups, width, depth, R, S;
  int64_t group, lane, depth_stride, tap;
};

// A TapClass as the kernels see it: they are compiled for one instruction set, and include no standard library.
struct TapClassView {
  const int *taps, *offsets;
  int tap_count;
  const Place* places;
  int place_count;
};

struct AxisView {
  const TapClassView* classes;
  int count;
  int kernel;  // taps in all
  int source, target;  // places
};

inline int taps_of_classes(const AxisView& axis) {
  int taps = 0;
  for (int c = 0; c < axis.count; c++) taps += axis.classes[c].tap_count;
  return taps;
}

// `direct` runs along rows. A channel's row of the source is copied between zeros into `phases` rows one behind
// another, so that the elements that neighbouring targets read lie side by side: element u goes to row (u + left) %
// phases, place (u + left) / phases.
struct RowPanel {
  int left, phases, phase_length;
  int64_t length() const { return int64_t(phases) * phase_length; }
};

// Targets first, first + step, ... of a row, and where the first of them finds its taps in a row of the panel
struct ColumnPhase {
  int first, step, count;
  const int *taps, *places;
  int tap_count;
};

struct Product {
  int images, groups;
  int depth, width;  // source and target channels, a group
  AxisView rows, columns;
  Strides source, target;
  // Pieces of work: strips of target rows, of one image or of several whole ones, times parts of the channels.
  int images_per_strip, rows_per_strip;  // one of them is 1, or all rows are in a strip
  int panels_per_piece;  // register tiles of channels
  bool in_planes;  // register_tiled reads the source's planes where they lie

  int64_t strips() const {
    return int64_t((images + images_per_strip - 1) / images_per_strip) *
           ((rows.target + rows_per_strip - 1) / rows_per_strip);
  }
};

// What register_tiled makes of the classes for a strip
namespace register_tiled {

struct Term {  // of the sums, for one tap and one channel of the source
  int source;  // from the pixel's base, in elements
  int weights;  // rows of a vector
};

struct Pixel {
  int64_t source, target;  // offsets in elements
};

struct Segment {  // the pixels of one class
  int64_t term, term_count, pixel, pixel_count;
  int64_t run;  // so many belong together: all of them, or, if their source elements lie side by side, those of a row
  bool side_by_side;
};

}  // namespace register_tiled

struct RowProduct {
  Product product;  // its columns have no classes: the zeros of the panel stand for them
  RowPanel panel;
  const ColumnPhase* phases;
  int phase_count;
  int bundle;  // groups whose source is brought into the panel at once
  bool in_place;  // the source's rows are as good as a panel: whole vectors, no padding, no stride
};

inline int taps_of_phases(const RowProduct& rp) {
  int taps = 0;
  for (int i = 0; i < rp.phase_count; i++) taps += rp.phases[i].tap_count;
  return taps;
}

}  // namespace convlab
