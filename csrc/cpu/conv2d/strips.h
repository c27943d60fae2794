// Strips of the target: rows of one image, or several whole images.
#pragma once
#include "cpu/conv2d/product.h"

namespace convlab::CONVLAB_ISA {

struct Strip {
  int n0, n1, row0, row1;  // of the target
};

inline Strip strip_of(const Product& p, int64_t index) {
  const int in_image = (p.rows.target + p.rows_per_strip - 1) / p.rows_per_strip;
  const int n0 = int(index / in_image) * p.images_per_strip, row0 = int(index % in_image) * p.rows_per_strip;
  return {n0, n0 + p.images_per_strip < p.images ? n0 + p.images_per_strip : p.images,  //
          row0, row0 + p.rows_per_strip < p.rows.target ? row0 + p.rows_per_strip : p.rows.target};
}

// The rows of the source that taps of the strip reach: [first, first + rows)
inline void rows_reached(const Product& p, const Strip& s, int& first, int& rows) {
  first = p.rows.source;
  int last = -1;
  for (int c = 0; c < p.rows.count; c++) {
    const TapClassView& view = p.rows.classes[c];
    for (int i = 0; i < view.place_count; i++)
      for (int t = 0; t < view.tap_count && view.places[i].at >= s.row0 && view.places[i].at < s.row1; t++) {
        const int row = view.places[i].base + view.offsets[t];
        if (row < first) first = row;
        if (row > last) last = row;
      }
  }
  rows = last < first ? 0 : last - first + 1;
}

}  // namespace convlab::CONVLAB_ISA
