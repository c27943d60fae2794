// Depthwise convolution, forward and dgrad: each channel by itself. A tile is a run of places, one vector each: side by
// side in a row or one below the other. Vectors run over channels, or along the rows of a plane.
//
// What it does    Three taps that lie along a tile share its loads: M + 2 of them feed 3 M multiply-adds, with three
//                 vectors of weights in registers. The other taps load for themselves. channels_last is read where it
//                 lies; places come sorted by the taps that reach them, so padding costs nothing. Where pixels lie so
//                 far apart that the first cache would not hold them, for other types and for planes, a strip's rows
//                 are first copied between zeros.
// Against direct  a third to a half of the loads, and channels_last without gathering.
// What bounds it  multiply-adds and memory, about alike for 3 x 3. For planes, loads astride two cache lines;
//                 depthwise_window.h, for the usual filters, has none.
#pragma once
#include "cpu/depthwise.h"
#include "cpu/simd/transpose.h"

namespace convlab::CONVLAB_ISA::depthwise {

// Places of a tile: the rows of the usual networks are multiples of 7. With 32 registers 14 sums fit beside three
// weights.
constexpr int kPlaces = kTilePixels * kTileVectors >= 24 ? 14 : 7;

// M places of `lanes` channels or columns, `step` elements apart in the source. weights [R S, L]
template <class A, int M>
void tile(const DepthwiseTaps& taps, const A* source, int64_t step, const A* weights, const A* bias, A* target,
          int64_t target_step, int lanes) {
  constexpr int L = kLanes<A>;
  Vec<A> sums[M];
#pragma GCC unroll 16
  for (int m = 0; m < M; m++) sums[m] = load<A>(bias);

  const DepthwiseTap* tap = taps.list;
  for (const DepthwiseTap* end = tap + taps.triples; tap < end; tap++) {
    const A *w = weights + tap->weights * L, *x = source + tap->source;
    const Vec<A> w0 = load<A>(w), w1 = load<A>(w + taps.weight_step * L), w2 = load<A>(w + 2 * taps.weight_step * L);
#pragma GCC unroll 16
    for (int j = 0; j < M + 2; j++, x += step) {
      Vec<A> value = load<A>(x);
      keep(value);
      if (j < M) sums[j < M ? j : 0] += w0 * value;
      if (j >= 1 && j <= M) sums[j >= 1 && j <= M ? j - 1 : 0] += w1 * value;
      if (j >= 2) sums[j >= 2 ? j - 2 : 0] += w2 * value;
    }
  }
  for (const DepthwiseTap* end = tap + taps.singles; tap < end; tap++) {
    const Vec<A> w = load<A>(weights + tap->weights * L);
    const A* x = source + tap->source;
#pragma GCC unroll 16
    for (int m = 0; m < M; m++, x += step) sums[m] += w * load<A>(x);
  }

#pragma GCC unroll 16
  for (int m = 0; m < M; m++, target += target_step) store_some<A>(target, sums[m], lanes);
}

template <class A>
using TileFunction = void (*)(const DepthwiseTaps&, const A*, int64_t, const A*, const A*, A*, int64_t, int);

template <class A, int... M> constexpr TileFunction<A> tile_of(int places, indices<M...>) {
  constexpr TileFunction<A> all[] = {&tile<A, M + 1>...};
  return all[places - 1];
}

// The next tile's places, of `left`: as many as fit, but for two tiles of nearly equal size at the end
inline int next_tile(int left) { return left >= 2 * kPlaces ? kPlaces : left > kPlaces ? (left + 1) / 2 : left; }

template <class A>
void tiles(const DepthwiseTaps& taps, int count, const A* source, int64_t step, const A* weights, const A* bias,
           A* target, int64_t target_step, int lanes) {
  for (int places; count > 0; count -= places, source += places * step, target += places * target_step) {
    places = next_tile(count);
    tile_of<A>(places, indices_to<kPlaces>{})(taps, source, step, weights, bias, target, target_step, lanes);
  }
}

// ---- strips
// -----------------------------------------------------------------------------------------------------------

struct Strip {
  int image, row0, row1;  // of the target
};

inline Strip strip_of(const Depthwise& d, int64_t index) {
  const int in_image = int(d.strips_per_image()), row0 = int(index % in_image) * d.rows_per_strip;
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

// ---- vectors over channels
// --------------------------------------------------------------------------------------------

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

template <class A, class T> void give_pixels(const A* panel, int columns, int lanes, T* to, const Strides& strides) {
  constexpr int L = kLanes<A>;
  if (strides.c != 1) return give_back(panel, L, 1, columns, lanes, to, strides);
  for (int j = 0; j < columns; j++, panel += L, to += strides.w) convert_out(panel, lanes, to);
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

// The pieces [begin, end): images x strips x vectors of channels. weights [vectors, R S, L]; bias [channels, at least
// L]
template <class T>
void run_pixels(const Depthwise& d, const T* source, const acc_t<T>* weights, const acc_t<T>* bias, T* target,
                int64_t begin, int64_t end, acc_t<T>* scratch) {
  using A = acc_t<T>;
  constexpr int L = kLanes<A>;
  const int vectors = (d.channels + L - 1) / L, lanes = d.channels < L ? d.channels : L;
  A* const out = scratch;  // [rows of a strip, columns, L]
  A* const panel = out + (d.target_in_place ? 0 : int64_t(d.rows_per_strip) * d.target_columns * L);
  int64_t zeroed = 0;
  for (int64_t piece = begin; piece < end; piece++) {
    const int64_t vector = piece % vectors;
    const int channel = first_channel(d.channels, vector, L);
    const Strip s = strip_of(d, piece / vectors);
    if (!d.source_in_place)
      for (const int64_t reached = rows_reached(d, s.row0, s.row1).count * d.row; zeroed < reached; zeroed++)
        panel[zeroed] = 0;
    const Lens<const A> from = see_pixels(d, s, source + s.image * d.source.n + channel * d.source.c, lanes, panel);
    T* const image = target + s.image * d.target.n + channel * d.target.c;
    Lens<A> to{out, int64_t(d.target_columns) * L, L, s.row0};
    if constexpr (sizeof(T) == sizeof(A))
      if (d.target_in_place) to = {image, d.target.h, d.target.w, 0};

    const A *const w = weights + vector * d.kernel_taps * L, *const b = bias + channel;
    for (int i = 0; i < d.block_count; i++) {
      const DepthwiseBlock& block = d.blocks[i];
      const DepthwisePlaces r = clipped(block.rows, s.row0, s.row1), &c = block.columns;
      if (block.down)
        for (int j = 0; j < c.count && r.count > 0; j++)
          tiles<A>(block.taps, r.count, from.at(r.from, c.from + j * c.from_step), r.from_step * from.row, w, b,
                   to.at(r.at, c.at + j * c.at_step), r.at_step * to.row, L);
      else
        for (int j = 0; j < r.count; j++)
          tiles<A>(block.taps, c.count, from.at(r.from + j * r.from_step, c.from), c.from_step * from.column, w, b,
                   to.at(r.at + j * r.at_step, c.at), c.at_step * to.column, L);
    }
    for (int row = s.row0; row < s.row1 && !d.target_in_place; row++)
      give_pixels(to.at(row, 0), d.target_columns, lanes, image + row * d.target.h, d.target);
  }
}

// ---- vectors along rows
// -----------------------------------------------------------------------------------------------

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

// panel [columns] -> every so many columns of a row
template <class A, class T> void give_columns(const A* from, int count, T* to, int64_t step) {
  if (step == 1) return convert_out(from, count, to);
  for (int i = 0; i < count; i++) to[i * step] = T(from[i]);
}

// The pieces [begin, end): images x strips x channels. weights [channels, R S]
template <class T>
void run_planes(const Depthwise& d, const T* source, const acc_t<T>* weights, const acc_t<T>* bias, T* target,
                int64_t begin, int64_t end, acc_t<T>* scratch) {
  using A = acc_t<T>;
  constexpr int L = kLanes<A>;
  A* const w = scratch;
  A* const b = w + d.kernel_taps * L;
  A* const out = b + L;  // [rows of a strip, columns]
  const int64_t out_row = (d.target_columns + L - 1) / L * L;
  A* const panel = out + (d.target_in_place ? 0 : d.rows_per_strip * out_row);
  int64_t zeroed = 0;
  for (int64_t piece = begin; piece < end; piece++) {
    const int64_t channel = piece % d.channels;
    const Strip s = strip_of(d, piece / d.channels);
    for (const int64_t reached = rows_reached(d, s.row0, s.row1).count * d.row; zeroed < reached; zeroed++)
      panel[zeroed] = 0;
    const Lens<const A> from = see_plane(d, s, source + s.image * d.source.n + channel * d.source.c, panel);
    for (int t = 0; t < d.kernel_taps; t++) store<A>(w + t * L, broadcast<A>(weights[channel * d.kernel_taps + t]));
    store<A>(b, broadcast<A>(bias[channel]));

    T* const plane = target + s.image * d.target.n + channel * d.target.c;
    for (int i = 0; i < d.block_count; i++) {
      const DepthwiseBlock& block = d.blocks[i];
      const DepthwisePlaces r = clipped(block.rows, s.row0, s.row1), &c = block.columns;
      if (r.count <= 0) continue;
      A* to = out;
      int64_t row = out_row;
      if constexpr (sizeof(T) == sizeof(A))
        if (d.target_in_place) to = plane + r.at * d.target.h + c.at, row = r.at_step * d.target.h;
      for (int q = 0; q < c.count; q += L) {
        if (q + L > c.count && c.count > L) q = c.count - L;
        tiles<A>(block.taps, r.count, from.at(r.from, c.from + q), r.from_step * from.row, w, b, to + q, row,
                 c.count < L ? c.count : L);
      }
      for (int j = 0; j < r.count && !d.target_in_place; j++)
        give_columns(out + j * out_row, c.count,
                     plane + (r.at + int64_t(j) * r.at_step) * d.target.h + c.at * d.target.w, c.at_step * d.target.w);
    }
  }
}

}  // namespace convlab::CONVLAB_ISA::depthwise
