// A strip's source with its channels innermost: where it lies, or copied to a panel; and how it is cut into tiles.
#pragma once
#include "cpu/conv2d/register_tiled/register_tiled.h"
#include "cpu/conv2d/strips.h"
#include "cpu/simd/transpose.h"

namespace convlab::CONVLAB_ISA::register_tiled {

using namespace convlab::register_tiled;

// Pixels, or channels of x in wgrad, in tiles of nearly equally many
struct TilesOf {
  int count, least, larger;  // so many of them have one more than the least

  explicit TilesOf(int all, int most = kTilePixels)
      : count((all + most - 1) / most), least(all / count), larger(all % count) {}
  int first(int i) const { return i * least + (i < larger ? i : larger); }
  int size(int i) const { return least + (i < larger); }
};

// The strip's source channels of one group: where they lie, and how
template <class A> struct Lens {
  const A* data;
  int64_t n, c, h, w;  // strides
  int row0, n0;  // data is at this row and image
  int64_t tile = 0;  // between tiles of channels, where they lie in such
};

// from [pixels, channels] of an image, contiguous -> panel [channels, pixels], `plane` >= pixels apart. Writes up to a
// vector past the panel's end.
template <class A, class T>
void take_planes(const T* from, const Strides& strides, int pixels, int channels, A* panel, int64_t plane) {
  if (strides.w != 1) return transpose_in(from, strides.w, pixels, channels, panel, plane);
  for (int c = 0; c < channels; c++, from += strides.c, panel += plane)
    for (int i = 0; i < pixels; i += kLanes<A>) store<A>(panel + i, load_some<A>(from + i, pixels - i));
}

template <class A, class T> Lens<A> look(const TiledProduct& t, const T* source, const Strip& s, int group, A* panel) {
  const Product& p = t.product;
  source += group * p.depth * p.source.c;
  if constexpr (sizeof(T) == sizeof(A))
    if (source_in_place(t))
      return {source + s.n0 * p.source.n, p.source.n, p.source.c, p.source.h, p.source.w, 0, s.n0};
  const int columns = p.columns.source;
  int first, rows;
  rows_reached(p, s, first, rows);
  if (t.slides) {
    const int64_t plane = panel_plane(int64_t(rows) * columns);
    for (int n = s.n0; n < s.n1; n++)
      take_planes(source + n * p.source.n + first * p.source.h, p.source, rows * columns, p.depth,
                  panel + (n - s.n0) * p.depth * plane, plane);
    return {panel, p.depth * plane, plane, columns, 1, first, s.n0};
  }
  const Lens<A> lens{panel, int64_t(rows) * columns * p.depth, 1, int64_t(columns) * p.depth, p.depth, first, s.n0};
  for (int n = s.n0; n < s.n1; n++)
    take_in(source + n * p.source.n + first * p.source.h, p.source, rows, columns, p.depth, panel + (n - s.n0) * lens.n,
            lens.w);
  return lens;
}

}  // namespace convlab::CONVLAB_ISA::register_tiled
