// Strips of the target: rows of one image, or several whole images; and the rows of the source that they read.
#pragma once
#include "cpu/conv2d/product.h"
#include "cpu/simd/vec.h"

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

// A row of the source -> its phases between zeros; the zeros are there already
template <class A, class T>
void take_row(const RowPanel& panel, const T* from, int64_t from_stride, int columns, A* to) {
  constexpr int L = kLanes<A>;
  using all = indices_to<L>;
  const int64_t end = panel.length() - panel.left;
  if (columns > end) columns = int(end);
  int taken = 0;
  if (panel.phases == 1 && from_stride == 1) {
    for (; taken + L <= columns; taken += L) store<A>(to + panel.left + taken, load_as<A>(from + taken));
  } else if (panel.phases == 2 && from_stride == 1) {  // even and odd elements, two vectors at a time
    A* const even = to + panel.left % 2 * panel.phase_length + panel.left / 2;
    A* const odd = to + (panel.left + 1) % 2 * panel.phase_length + (panel.left + 1) / 2;
    for (; taken + 2 * L <= columns; taken += 2 * L) {
      const Vec<A> a = load_as<A>(from + taken), b = load_as<A>(from + taken + L);
      store<A>(even + taken / 2, unzip<A, 0>(a, b, all{}));
      store<A>(odd + taken / 2, unzip<A, 1>(a, b, all{}));
    }
  }
  int phase = (panel.left + taken) % panel.phases;
  A* place = to + phase * panel.phase_length + (panel.left + taken) / panel.phases;
  for (; taken < columns; taken++) {
    *place = A(from[taken * from_stride]);
    place += panel.phase_length;
    if (++phase == panel.phases) phase = 0, place += 1 - panel.length();
  }
}

}  // namespace convlab::CONVLAB_ISA
