// A strip's source: where it lies, or copied between zeros; and the places of its target, run by run.
#pragma once
#include "cpu/conv2d/depthwise/depthwise.h"
#include "cpu/conv2d/strips.h"
#include "cpu/simd/integer_lanes.h"
#include "cpu/simd/transpose.h"

namespace convlab::CONVLAB_ISA::depthwise {

using namespace convlab::depthwise;

#if defined(__AVX512F__)
constexpr bool kMasks = true;  // stand for the zeros around planes in memory
#else
constexpr bool kMasks = false;
#endif

// Places of a tile: the rows of the usual networks are multiples of 7. With 32 registers 14 sums fit beside three
// weights.
constexpr int kPlaces = kManyRegisters ? 14 : 7;

constexpr int kGroupPlaces = 7;  // where moving lanes takes as long as a multiply-add

// The next tile's places, of `left`: as many as fit, but for two tiles of nearly equal size at the end
inline int next_tile(int left, int most) { return left >= 2 * most ? most : left > most ? (left + 1) / 2 : left; }

// The next vectors of channels that are met together, of `left`: two by two, whole lines with AVX2, and about as many each
// time
inline int vectors_of_turn(int left, int most) {
  const int lines = most > 1 ? int(round_up(next_tile(left, most), 2)) : 1;
  return lines < left ? lines : left;
}

// Which channels meet. By itself, a channel meets its own; in groups, every lane meets lane i of its group, for each i.
template <class A, bool grouped> struct Groups {
  static constexpr int size = 1;
  explicit Groups(int) {}
  auto lanes(int) const {
    return [](Vec<A> v) __attribute__((always_inline)) { return v; };
  }
};
template <class A> struct Groups<A, true> {
  int size;
  Integers<A> from[kLargestGroup];

  explicit Groups(int size) : size(size) {
    for (int i = 0; i < size; i++)
      for (int l = 0; l < kLanes<A>; l++) from[i][l] = l / size * size + i;
  }
  auto lanes(int i) const {
    return [from = from[i]](Vec<A> v) __attribute__((always_inline)) { return permuted<A>(v, from); };
  }
};

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

// The last vector covers part of the one before, so that none is short of channels
inline int first_channel(int channels, int64_t vector, int lanes) {
  const int64_t first = vector * lanes, last = channels - lanes;
  return int(first <= last || last < 0 ? first : last);
}

// f(channels from the first vector's to this one, its sums of wgrad) for so many vectors, one behind another
template <class A, class F> void each_vector(const Depthwise& d, int64_t first, int vectors, A* sums, const F& f) {
  constexpr int L = kLanes<A>;
  for (int v = 0; v < vectors; v++, sums += int64_t(d.kernel_taps) * L)
    f(first_channel(d.channels, first + v, L) - first_channel(d.channels, first, L), sums);
}

// Rows of contiguous planes -> pixels of a vector each, in rows `row` elements apart
template <class A, class T>
void turn_planes(const T* from, int64_t plane, int planes, int rows, int columns, A* to, int64_t row) {
  constexpr int L = kLanes<A>;
  const int count = rows * columns;
  for (int i = 0; i < count; i += L) {
    if (i + L > count && count > L) i = count - L;  // the last block again covers part of the one before
    Vec<A> block[L];
#pragma GCC unroll 16
    for (int l = 0; l < L; l++) block[l] = l < planes ? load_some<A>(from + l * plane + i, count - i) : Vec<A>{};
    transpose<A>(block);
    int column = i % columns;
    A* pixel = to + i / columns * row + column * L;
#pragma GCC unroll 16
    for (int l = 0; l < L; l++) {
      if (i + l < count) store<A>(pixel, block[l]);
      pixel += L;
      if (++column == columns) column = 0, pixel += row - columns * L;
    }
  }
}

// A row of the source -> its phases in a panel's row, whose other elements are zero already. Panels have room for whole
// vectors.
template <class A, class T>
void take_columns(const RowPanel& panel, const T* from, int64_t from_stride, int columns, A* to) {
  constexpr int L = kLanes<A>;
  if (panel.phases == 1 && from_stride == 1) {
    copy_row(from, columns, to + panel.left);
  } else if (panel.phases == 2 && from_stride == 1) {
    to += panel.left / 2;
    for (int u = 0; u < columns; u += 2 * L, to += L) {
      const Vec<A> a = load_some<A>(from + u, columns - u),
                   b = columns - u > L ? load_some<A>(from + u + L, columns - u - L) : Vec<A>{};
      store<A>(to, unzip<A, 0>(a, b));
      store<A>(to + panel.phase_length, unzip<A, 1>(a, b));
    }
  } else {
    to += panel.left / panel.phases;
    for (int u = 0; u < columns; u++)
      to[u % panel.phases * panel.phase_length + u / panel.phases] = A(from[u * from_stride]);
  }
}

// A strip and the rows that its taps reach, found once for all channels: a plane of 7 x 7 is no more work than that
struct Reach {
  Strip strip;
  RowRange rows;

  Reach(const Depthwise& d, int64_t index)
      : strip(strip_of(d.product, index)), rows(rows_reached(d, strip.row0, strip.row1)) {}
};

// The rows that a strip's taps reach, of a plane or of `lanes` channels that begin at `from`: where they lie, or copied
// to a panel, of which `zeroed` elements are zero or have been written. Windows count columns from the source's first.
template <class A, class T>
CONVLAB_INLINE Lens<const A> see(const Depthwise& d, const RowRange& rows, const T* from, int lanes, A* panel,
                                 int64_t& zeroed) {
  const Strides& strides = d.product.source;
  if constexpr (sizeof(T) == sizeof(A))
    if (d.source_in_place && (kMasks || !d.planes)) return {from, strides.h, strides.w, 0};
  for (; zeroed < rows.count * d.row; zeroed++) panel[zeroed] = 0;
  const int columns = d.product.columns.source, top = rows.first < 0 ? -rows.first : 0,
            bottom = d.product.rows.source - rows.first < rows.count ? d.product.rows.source - rows.first : rows.count;
  if (!d.planes && strides.w == 1 && strides.h == columns && top < bottom) {
    clear(panel, top * d.row), clear(panel + bottom * d.row, (rows.count - bottom) * d.row);
    turn_planes(from + (rows.first + top) * strides.h, strides.c, lanes, bottom - top, columns,
                panel + top * d.row + d.panel.left * d.pixel, d.row);
    return {panel, d.row, d.pixel, rows.first};
  }
  for (int i = 0; i < rows.count; i++) {
    const int h = rows.first + i;
    A* const to = panel + i * d.row;
    if (h < 0 || h >= d.product.rows.source) clear(to, d.window.rows ? 0 : d.row);  // windows leave them out
    else if (d.planes) take_columns(d.panel, from + h * strides.h, strides.w, columns, to);
    else take_in(from + h * strides.h, strides, 1, columns, lanes, to + d.panel.left * d.pixel, kLanes<A>);
  }
  return {panel + (d.window.rows ? d.panel.left : 0), d.row, d.pixel, rows.first};
}

// f(taps, count, source, its step, target, its step) for each run of a strip's places
template <class From, class To, class F>
void each_run(const Depthwise& d, const Strip& s, const Lens<From>& from, const Lens<To>& to, const F& f) {
  for (const Block* block = d.blocks; block < d.blocks + d.block_count; block++) {
    const Places r = clipped(block->rows, s.row0, s.row1), &c = block->columns;
    if (block->down)
      for (int j = 0; j < c.count && r.count > 0; j++)
        f(block->taps, r.count, from.at(r.from, c.from + j * c.from_step), r.from_step * from.row,
          to.at(r.at, c.at + j * c.at_step), r.at_step * to.row);
    else
      for (int j = 0; j < r.count; j++)
        f(block->taps, c.count, from.at(r.from + j * r.from_step, c.from), c.from_step * from.column,
          to.at(r.at + j * r.at_step, c.at), c.at_step * to.column);
  }
}

}  // namespace convlab::CONVLAB_ISA::depthwise
