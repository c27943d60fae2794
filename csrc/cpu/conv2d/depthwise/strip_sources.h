// A strip's source: where it lies, or copied between zeros.
#pragma once
#include "cpu/conv2d/depthwise/depthwise.h"
#include "cpu/simd/transpose.h"

namespace convlab::CONVLAB_ISA::depthwise {

using namespace convlab::depthwise;

// Places of a tile: the rows of the usual networks are multiples of 7. With 32 registers 14 sums fit beside three
// weights.
constexpr int kPlaces = kTilePixels * kTileVectors >= 24 ? 14 : 7;

// The next tile's places, of `left`: as many as fit, but for two tiles of nearly equal size at the end
inline int next_tile(int left) { return left >= 2 * kPlaces ? kPlaces : left > kPlaces ? (left + 1) / 2 : left; }

struct Strip {
  int image, row0, row1;  // of the target
};

inline Strip strip_of(const Depthwise& d, int64_t index) {
  const int in_image = (d.target_rows + d.rows_per_strip - 1) / d.rows_per_strip,
            row0 = int(index % in_image) * d.rows_per_strip;
  return {int(index / in_image), row0,
          row0 + d.rows_per_strip < d.target_rows ? row0 + d.rows_per_strip : d.target_rows};
}

// Something of a strip: its rows and columns lie so many elements apart, and its data begin at row `row0`
template <class A> struct Lens {
  A* data;
  int64_t row, column;
  int row0;
  A* at(int r, int64_t c) const { return data + (r - row0) * row + c * column; }
};

template <class A> void clear(A* elements, int64_t count) {
  for (int64_t i = 0; i < count; i++) elements[i] = 0;
}

// Clears what a strip's rows will lie in, unless it has been
template <class A> void clear_for(const Depthwise& d, const Strip& s, A* panel, int64_t& zeroed) {
  for (const int64_t reached = rows_reached(d, s.row0, s.row1).count * d.row; zeroed < reached; zeroed++)
    panel[zeroed] = 0;
}

// ---- vectors over channels

// The last vector covers part of the one before, so that none is short of channels
inline int first_channel(int channels, int64_t vector, int lanes) {
  const int64_t first = vector * lanes, last = channels - lanes;
  return int(first <= last || last < 0 ? first : last);
}

// A row of `lanes` channels -> panel [columns, L]
template <class A, class T> void take_pixels(const T* from, const Strides& strides, int columns, int lanes, A* panel) {
  constexpr int L = kLanes<A>;
  if (strides.c != 1) return take_in(from, strides, 1, columns, lanes, panel, L);
  for (int j = 0; j < columns; j++, from += strides.w, panel += L) {
    if constexpr (sizeof(T) != sizeof(A)) convert_in(from, lanes, panel);
    else store<A>(panel, load_some<A>(from, lanes));
  }
}

// The source of a strip's vector of channels, which begins at `from` in the image: where it lies, or copied to a panel
// of zeros
template <class A, class T>
Lens<const A> see_pixels(const Depthwise& d, const Strip& s, const T* from, int lanes, A* panel) {
  if constexpr (sizeof(T) == sizeof(A))
    if (d.source_in_place) return {from, d.row, d.pixel, 0};
  const RowRange rows = rows_reached(d, s.row0, s.row1);
  for (int i = 0; i < rows.count; i++) {
    const int h = rows.first + i;
    if (h < 0 || h >= d.source_rows) clear(panel + i * d.row, d.row);
    else
      take_pixels(from + h * d.source.h, d.source, d.source_columns, lanes, panel + i * d.row + d.panel.left * d.pixel);
  }
  return {panel, d.row, d.pixel, rows.first};
}

// ---- vectors along rows

// A row of the source -> its phases in a panel's row, whose other elements are zero already. Panels have room for whole
// vectors.
template <class A, class T>
void take_columns(const RowPanel& panel, const T* from, int64_t from_stride, int columns, A* to) {
  constexpr int L = kLanes<A>;
  using all = indices_to<L>;
  if (panel.phases == 1 && from_stride == 1) {
    to += panel.left;
    if constexpr (sizeof(T) != sizeof(A)) return convert_in(from, columns, to);
    int u = 0;
    for (; u + L <= columns; u += L) store<A>(to + u, load_as<A>(from + u));
    if (u < columns) store<A>(to + u, load_some<A>(from + u, columns - u));
  } else if (panel.phases == 2 && from_stride == 1) {
    to += panel.left / 2;
    for (int u = 0; u < columns; u += 2 * L, to += L) {
      const Vec<A> a = load_some<A>(from + u, columns - u),
                   b = columns - u > L ? load_some<A>(from + u + L, columns - u - L) : Vec<A>{};
      store<A>(to, unzip<A, 0>(a, b, all{}));
      store<A>(to + panel.phase_length, unzip<A, 1>(a, b, all{}));
    }
  } else {
    to += panel.left / panel.phases;
    for (int u = 0; u < columns; u++)
      to[u % panel.phases * panel.phase_length + u / panel.phases] = A(from[u * from_stride]);
  }
}

// The rows of a plane -> panel [rows, length]
template <class A, class T> Lens<const A> see_plane(const Depthwise& d, const Strip& s, const T* plane, A* panel) {
  const RowRange rows = rows_reached(d, s.row0, s.row1);
  for (int i = 0; i < rows.count; i++) {
    const int h = rows.first + i;
    if (h < 0 || h >= d.source_rows) clear(panel + i * d.row, d.row);
    else take_columns(d.panel, plane + h * d.source.h, d.source.w, d.source_columns, panel + i * d.row);
  }
  return {panel, d.row, 1, rows.first};
}

}  // namespace convlab::CONVLAB_ISA::depthwise
