// A strip's rows of the source for direct's kernels, copied between zeros and taken apart by the stride.
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
    if (from_stride == 1) return copy_row(from, columns, to);
    for (int u = 0; u < columns; u++) to[u] = A(from[u * from_stride]);
    return;
  }
  int taken = 0;
  if (panel.phases == 2 && from_stride == 1) {  // even and odd elements, two vectors at a time
    A* const even = to + panel.left % 2 * panel.phase_length + panel.left / 2;
    A* const odd = to + (panel.left + 1) % 2 * panel.phase_length + (panel.left + 1) / 2;
    for (; taken + 2 * kLanes<A> <= columns; taken += 2 * kLanes<A>) {
      const Vec<A> a = load_as<A>(from + taken), b = load_as<A>(from + taken + kLanes<A>);
      store<A>(even + taken / 2, unzip<A, 0>(a, b));
      store<A>(odd + taken / 2, unzip<A, 1>(a, b));
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

// A strip's rows of the source, in a panel or in place; strides in elements
template <class A> struct Field {
  const A* data;
  int64_t image, channel, row;
  int n0, row0;  // data is at this image and row
};

// The source rows [first, first + rows), also outside, of a strip's images and of so many channels: in place, or copied
// to a panel [images, channels, rows, length], of which `zeroed` elements are zero or have been written. turned: a row
// with its channels outermost, where they lie innermost.
template <class A, class T>
Field<A> look(const RowProduct& rp, const T* source, const Strip& s, int channels, int first, int rows, A* panel,
              A* turned, int64_t& zeroed) {
  const Product& p = rp.product;
  if constexpr (sizeof(T) == sizeof(A))
    if (rp.in_place) return {source, p.source.n, p.source.c, p.source.h, 0, 0};
  const int64_t length = rp.panel.length(), channel = rows * length, image = channels * channel,
                turned_length = round_up(p.columns.source, kLanes<A>);
  for (; zeroed < image * (s.n1 - s.n0) + kLanes<A>; zeroed++) panel[zeroed] = 0;
  // As memory has them: the rows of a channel one after another, or all channels of a row
  const bool turn = p.source.c == 1 && p.source.w != 1;
  const int outer = turn ? rows : channels, inner = turn ? channels : rows;
  for (int n = s.n0; n < s.n1; n++)
    for (int i = 0; i < outer; i++)
      for (int j = 0; j < inner; j++) {
        const int row = turn ? i : j, c = turn ? j : i, h = first + row;
        const T* const from = source + n * p.source.n + h * p.source.h;
        const bool inside = h >= 0 && h < p.rows.source;
        A* const to = panel + (n - s.n0) * image + c * channel + row * length;
        if (inside && turn && c == 0) transpose_in(from, p.source.w, p.columns.source, channels, turned, turned_length);
        if (!inside)
          for (int k = 0; k < length; k++) to[k] = 0;
        else if (turn) take_row(rp.panel, turned + c * turned_length, 1, p.columns.source, to);
        else take_row(rp.panel, from + c * p.source.c, p.source.w, p.columns.source, to);
      }
  return {panel, image, channel, length, s.n0, first};
}

}  // namespace convlab::CONVLAB_ISA::direct
