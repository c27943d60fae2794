// A strip's rows of the source, copied between zeros and taken apart by the stride.
#pragma once
#include "cpu/conv2d/direct/direct.h"
#include "cpu/conv2d/strips.h"
#include "cpu/simd/transpose.h"

namespace convlab::CONVLAB_ISA::direct {

using namespace convlab::direct;

// A row of the source -> its phases between zeros; the zeros are there already
template <class A, class T>
void take_row(const RowPanel& panel, const T* from, int64_t from_stride, int columns, A* to) {
  const int end = panel.phases * panel.phase_length - panel.left;
  if (columns > end) columns = end;
  if (panel.phases == 1) {
    to += panel.left;
    if (from_stride == 1) {
      int u = 0;
      for (; u + kLanes<A> <= columns; u += kLanes<A>) store<A>(to + u, load_as<A>(from + u));
      for (; u < columns; u++) to[u] = A(from[u]);
    } else {
      for (int u = 0; u < columns; u++) to[u] = A(from[u * from_stride]);
    }
    return;
  }
  int taken = 0;
  if (panel.phases == 2 && from_stride == 1) {  // even and odd elements, two vectors at a time
    using all = indices_to<kLanes<A>>;
    A* const even = to + panel.left % 2 * panel.phase_length + panel.left / 2;
    A* const odd = to + (panel.left + 1) % 2 * panel.phase_length + (panel.left + 1) / 2;
    for (; taken + 2 * kLanes<A> <= columns; taken += 2 * kLanes<A>) {
      const Vec<A> a = load_as<A>(from + taken), b = load_as<A>(from + taken + kLanes<A>);
      store<A>(even + taken / 2, unzip<A, 0>(a, b, all{}));
      store<A>(odd + taken / 2, unzip<A, 1>(a, b, all{}));
    }
  }
  for (int phase = 0; phase < panel.phases; phase++) {
    int u = (phase - panel.left) % panel.phases;  // the first source element of this phase
    if (u < 0) u += panel.phases;
    if (u < taken) u += (taken - u + panel.phases - 1) / panel.phases * panel.phases;
    A* row = to + phase * panel.phase_length + (u + panel.left) / panel.phases;
    for (; u < columns; u += panel.phases) *row++ = A(from[u * from_stride]);
  }
}

// The source rows [first, first + rows) of a strip's images and of so many channels -> panel [images, channels, rows,
// length]. Rows outside the source stay zero. turned: a row with its channels outermost, where they lie innermost;
// elements apart: turned_length
template <class A, class T>
void take_rows(const RowProduct& rp, const T* source, const Strip& s, int channels, int first, int rows, A* panel,
               A* turned) {
  const Product& p = rp.product;
  const int64_t length = rp.panel.length(), turned_length = round_up(p.columns.source, kLanes<A>);
  for (int n = s.n0; n < s.n1; n++)
    for (int row = 0; row < rows; row++) {
      const int h = first + row;
      const T* const from = source + n * p.source.n + h * p.source.h;
      const bool inside = h >= 0 && h < p.rows.source, turn = p.source.c == 1 && p.source.w != 1;
      if (inside && turn) transpose_in(from, p.source.w, p.columns.source, channels, turned, turned_length);
      for (int c = 0; c < channels; c++) {
        A* const to = panel + ((int64_t(n - s.n0) * channels + c) * rows + row) * length;
        if (!inside)
          for (int i = 0; i < length; i++) to[i] = 0;
        else if (turn) take_row(rp.panel, turned + c * turned_length, 1, p.columns.source, to);
        else take_row(rp.panel, from + c * p.source.c, p.source.w, p.columns.source, to);
      }
    }
}

}  // namespace convlab::CONVLAB_ISA::direct
