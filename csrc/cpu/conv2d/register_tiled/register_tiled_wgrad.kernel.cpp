// wgrad, register tiled: a tile of input channels times output channels of one tap lives in vector registers while all
// pixels of a strip that the tap reaches go by. Each step multiplies a few channels of x, broadcast, with vectors of
// dy.
//
// What it does    x and dy lie with their channels innermost, in memory already or in panels of a strip, as in
//                 register_tiled.h. Few channels of x are a tile together with those of the taps beside; many lie in
//                 tiles one behind another, so that a tile's lines do not fall upon the same sets of the L1. What the
//                 next strip reads, of planes of dy the next tile of k, comes to the L2 meanwhile. The sums of a strip are
//                 added to those of the strips before; slices of strips are summed apart, as many as the shape asks
//                 for, and added up in their order, so the result has the same bits for any number of threads. Where
//                 there is one, a panel of k is written to dw behind its last strip, and dw's lines asked for before.
// What bounds it  multiply-adds from about 32 x 12 channels on. `direct` is for fewer.
#include <algorithm>

#include "cpu/conv2d/packed_weights.h"
#include "cpu/conv2d/register_tiled/ahead.h"
#include "cpu/conv2d/register_tiled/source_of_strip.h"

namespace convlab::CONVLAB_ISA::register_tiled {

// A tile of kManyChannels or more has so many, with sixteen registers; so many that its last vector has one at least
constexpr int kLeastInTiles = kTilePixels - 1;
static_assert(2 * kTilePixels <= kManyChannels);
constexpr int kTallTile = kTilePixels * kTileVectors;  // channels of x of a tile of one vector, which has as many sums

// Rows of pixels that a tap meets: `count` pixels each, and how far apart they lie in x and in dy
struct Rows {
  const Pair* pairs;
  int64_t rows, count, x_step, dy_step;
};

// sums [J, NV vectors] of channels c and k += , or = if they are new; rows of L, vectors `vector_stride` apart. In panels
// the compiler knows how far apart pixels are, and multiplies kSteps of them at once.
template <class A, int J, int NV, bool in_panels>
void wgrad_tile(const Rows& pixels, const A* x, const A* dy, A* sums, int64_t vector_stride, bool anew,
                Ahead::Steps ahead) {
  constexpr int L = kLanes<A>;
  Vec<A> acc[J][NV] = {};
  const int64_t x_step = in_panels ? kTilePixels : pixels.x_step, dy_step = in_panels ? NV * L : pixels.dy_step;
  for (int64_t i = 0; i < pixels.rows; i++) {
    const A *xp = x + pixels.pairs[i].x, *dyp = dy + pixels.pairs[i].dy;
    const auto multiply = [&](const A* near, const A* from) __attribute__((always_inline)) {
      Vec<A> grad[NV];
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) grad[v] = load<A>(from + v * L);
#pragma GCC unroll 32
      for (int j = 0; j < J; j++) {
        Vec<A> value = broadcast<A>(near[j]);
        if (NV > 1) keep(value);
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) add_product<A>(acc[j][v], value, grad[v]);
      }
    };
    const auto ask = [&](int count) __attribute__((always_inline)) {
      __builtin_prefetch(ahead.at, 0, 2);
      ahead.at += count * ahead.step;
    };
    int64_t left = pixels.count;
    constexpr int M = in_panels ? kSteps : kSteps / 2;
    for (; M > 1 && left >= M; left -= M, xp += M * x_step, dyp += M * dy_step)
#pragma GCC unroll 4
      for (int m = 0; m < M; m++) {
        if (m % 2 == 0) ask(2);
        const A* near = xp + m * x_step;
        if (!in_panels && m) keep(near);
        multiply(near, dyp + m * dy_step);
      }
    for (; left > 0; left--, xp += x_step, dyp += dy_step) {
      ask(1);
      multiply(xp, dyp);
    }
  }
#pragma GCC unroll 32
  for (int j = 0; j < J; j++)
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) {
      A* const to = sums + j * L + v * vector_stride;
      store<A>(to, anew ? acc[j][v] : load<A>(to) + acc[j][v]);
    }
}

struct Span {
  int begin, end;
};

// The places of y, from `begin` to `end`, whose tap lies inside x
inline Span reached(int begin, int end, int size, int stride, int first) {
  if (first < 0 && begin < (-first + stride - 1) / stride) begin = (-first + stride - 1) / stride;
  const int last = first < size ? (size - 1 - first) / stride + 1 : 0;
  if (end > last) end = last;
  return {begin, begin < end ? end : begin};
}

// A strip of dy, in memory or in a panel [pixels, vectors of a tile]; strides in elements
template <class A> struct Grad {
  const A* data;
  int64_t n, h, w;
};

// The rectangle of a strip's pixels that a tap reaches, from its first pixel and what that meets in x on; rows that lie one
// behind another are one
template <class A>
Rows pair_up(const Axis& vertical, const Axis& horizontal, const Span& rows, const Span& columns, const Strip& s,
             const Lens<A>& x, const Grad<A>& dy, Pair* pairs) {
  Rows all{pairs, 0, columns.end - columns.begin, horizontal.stride * x.w, dy.w};
  const int64_t x_row = vertical.stride * x.h;
  for (int n = 0; n < s.n1 - s.n0; n++)
    for (int p = rows.begin; p < rows.end && all.count; p++)
      pairs[all.rows++] = {int(n * x.n + (p - rows.begin) * x_row), int(n * dy.n + (p - rows.begin) * dy.h)};
  const int64_t height = rows.end - rows.begin;
  if (x_row == all.count * all.x_step && dy.h == all.count * all.dy_step && all.rows == height && height > 0)
    all.count *= height, all.rows = 1;
  return all;
}

// A patch of x -> [channels]; writes up to a vector past its end
template <class A, class T> void take_patch(const Patches& p, const T* from, A* to) {
  for (int i = 0; i < p.count[0]; i++)
    for (int j = 0; j < p.count[1]; j++, to += p.count[2]) {
      const T* const run = from + i * p.step[0] + j * p.step[1];
      for (int k = 0; k < p.count[2] && p.step[2] == 1; k += kLanes<A>)
        store<A>(to + k, load_some<A>(run + k, p.count[2] - k));
      for (int k = 0; k < p.count[2] && p.step[2] != 1; k++) to[k] = A(run[k * p.step[2]]);
    }
}

// The strip's rows of x in tiles of channels
template <class A, class T>
Lens<A> look_in_tiles(const TiledProduct& t, const T* source, const Strip& s, int group, A* panel, A* patches) {
  const Product& p = t.product;
  const int columns = p.columns.source;
  const TilesOf tiles(p.depth);
  int first, rows;
  rows_reached(p, s, first, rows);
  const int64_t pixels = int64_t(rows) * columns;
  Lens<A> lens{panel, pixels * kTilePixels, 1, int64_t(columns) * kTilePixels, kTilePixels, first, s.n0};
  lens.tile = tile_elements((s.n1 - s.n0) * pixels, kTilePixels, kLanes<A>);
  source += group * p.depth * p.source.c + first * p.source.h;
  for (int n = s.n0; n < s.n1; n++) {
    const T* const image = source + n * p.source.n;
    A* to = panel + (n - s.n0) * lens.n;
    for (int i = 0; i < tiles.count && p.source.c != 1; i++)
      take_in(image + tiles.first(i) * p.source.c, p.source, rows, columns, tiles.size(i), to + i * lens.tile,
              kTilePixels);
    const auto copy = [&](const auto* pixel, int64_t step, auto count) __attribute__((always_inline)) {  // of pixels
      constexpr int kCount = count;
      for (int i = 0; i < tiles.count; i++) {
        const int c0 = tiles.first(i);
#pragma GCC unroll 4
        for (int m = 0; m < kCount; m++)
          for (int c = 0; c < kTilePixels; c += kLanes<A>)  // what is too much the next pixel overwrites
            store<A>(to + i * lens.tile + m * kTilePixels + c,
                     load_some<A>(pixel + m * step + c0 + c, p.depth - c0 - c));
      }
      to += count * kTilePixels;
    };
    for (int row = 0; row < rows && p.source.c == 1; row++) {  // a pixel has all of its channels in a few lines
      const T* pixel = image + row * p.source.h;
      const auto take = [&](auto count) __attribute__((always_inline)) {
        for (int m = 0; m < count && t.patches.any(); m++)
          take_patch(t.patches, pixel + m * p.source.w, patches + m * p.depth);
        t.patches.any() ? copy(patches, p.depth, count) : copy(pixel, p.source.w, count);
        pixel += count * p.source.w;
      };
      int j = 0;
      for (; j + kPixelsTogether <= columns; j += kPixelsTogether) take(std::integral_constant<int, kPixelsTogether>());
      for (; j < columns; j++) take(std::integral_constant<int, 1>());
    }
  }
  return lens;
}

inline Span reached_by(const Axis& a, int tap) {
  return reached(0, a.outputs, a.size, a.stride, tap * a.dilation - a.pad);
}

// Neighbouring taps from t on whose channels of x lie side by side count as more channels, of the pixels that all of them
// reach, where that makes fewer tiles of at most `most`. What some alone reach, at the edges, is added tap by tap.
struct Together {
  int taps;
  Span inside;
};

inline Together taps_together(const Axis& a, int t, int depth, int most) {
  const int left = a.kernel - t;
  const auto tiles = [&](int n) { return TilesOf(n * depth, most).count + (left - n) * TilesOf(depth, most).count; };
  Together found{1, reached_by(a, t)};
  Span both = found.inside;
  for (int n = 2; n <= left; n++) {
    const Span next = reached_by(a, t + n - 1);
    const bool same = next.begin == found.inside.begin && next.end == found.inside.end;
    both = {both.begin > next.begin ? both.begin : next.begin, both.end < next.end ? both.end : next.end};
    if (!same && (both.end - both.begin) * 2 < a.outputs) break;
    if (tiles(n) < tiles(found.taps) || (same && tiles(n) == tiles(found.taps))) found = {n, both};
  }
  return found;
}

// Pixels that were paired up; of 1 x 1 filters they serve all tiles of k of a strip
struct Paired {
  Pair* pairs;
  int height = 0, width = 0;
  Rows rows{};
};

// The sums of one strip's pixels, for the vectors of one tile of k: sums [vectors, R, S, C/groups, L] += , or = for the
// first strip. Tiles ask by turns for the next strip's x and dy.
template <class A>
void add_strip(const Product& p, const Axis& vertical, const Axis& horizontal, const Strip& s, const Lens<A>& x,
               const Grad<A>& dy, Paired& paired, Ahead (&ahead)[2], int& turn, int vectors, A* sums, bool anew) {
  constexpr int L = kLanes<A>;
  const int most = vectors == 1 && !x.tile ? kTallTile : kTilePixels;
  const int64_t vector_stride = int64_t(vertical.kernel) * horizontal.kernel * p.depth * L;
  // Adds the pixels of a rectangle that `taps` taps from (r, t) on reach
  const auto add = [&](int r, int t, int taps, const Span& rows, const Span& columns, Paired& met, A* to, bool set,
                       bool asks) {
    if (rows.end - rows.begin != met.height || columns.end - columns.begin != met.width) {
      met.height = rows.end - rows.begin, met.width = columns.end - columns.begin;
      met.rows = pair_up(vertical, horizontal, rows, columns, s, x, dy, met.pairs);
    }
    if (!met.rows.rows) {
      for (int v = 0; v < vectors && set; v++)
        for (int i = 0; i < taps * p.depth * L; i++) to[v * vector_stride + i] = 0;
      return;
    }
    const int h0 = r * vertical.dilation - vertical.pad, w0 = t * horizontal.dilation - horizontal.pad;
    const A* const from = x.data + (s.n0 - x.n0) * x.n + (int64_t(rows.begin) * vertical.stride + h0 - x.row0) * x.h +
                          (int64_t(columns.begin) * horizontal.stride + w0) * x.w;
    const A* const grad = dy.data + (rows.begin - s.row0) * dy.h + columns.begin * dy.w;
    const TilesOf tiles(taps * p.depth, most);
    for (int i = 0; i < tiles.count; i++) {
      const int c = tiles.first(i), channels = tiles.size(i);
      const bool in_panels = kSteps > 1 && vectors == kTileVectors && channels >= kLeastInTiles &&
                             met.rows.x_step == kTilePixels && met.rows.dy_step == kTileVectors * L;
      const auto f = vectors == 1 ? of_size<kTallTile>(channels, [](auto j) { return &wgrad_tile<A, j, 1, false>; })
                     : !in_panels
                         ? of_size<kTilePixels>(channels, [](auto j) { return &wgrad_tile<A, j, kTileVectors, false>; })
                     : channels == kTilePixels ? &wgrad_tile<A, kTilePixels, kTileVectors, true>
                                               : &wgrad_tile<A, kLeastInTiles, kTileVectors, true>;
      f(met.rows, from + (x.tile ? i * x.tile : c), grad, to + c * L, vector_stride, set,
        asks ? ahead[turn++ % 2].in_steps(met.rows.rows * met.rows.count, met.pairs)
             : Ahead::Steps{reinterpret_cast<const char*>(met.pairs), 0});
    }
  };
  const bool beside = !x.tile && horizontal.dilation * x.w == p.depth;
  for (int r = 0; r < vertical.kernel; r++)
    for (int t = 0, taps; t < horizontal.kernel; t += taps, sums += taps * p.depth * L) {
      const Span rows = reached(s.row0, s.row1, vertical.size, vertical.stride, r * vertical.dilation - vertical.pad);
      const auto [together, inside] =
          beside ? taps_together(horizontal, t, p.depth, most) : Together{1, reached_by(horizontal, t)};
      taps = together;
      add(r, t, taps, rows, inside, paired, sums, anew, true);
      for (int i = 0; i < taps; i++) {
        const Span all = reached_by(horizontal, t + i);
        for (const Span& edge : {Span{all.begin, inside.begin}, Span{inside.end, all.end}}) {
          Paired met{paired.pairs + paired.rows.rows};
          if (edge.begin < edge.end) add(r, t + i, 1, rows, edge, met, sums + i * p.depth * L, false, false);
        }
      }
    }
}

// The pieces [begin, end): slices of strips x groups x parts of the tiles of k. Their sums [R, S, C/groups, L] of each
// vector go to dw where there is one slice, and to sums [slices, groups, vectors of k] where there are more.
template <class T>
void wgrad(const TiledProduct& t, const T* dy, const T* x, T* dw, acc_t<T>* sums, int64_t begin, int64_t end,
           char* scratch) {
  using A = acc_t<T>;
  constexpr int L = kLanes<A>, kPanel = kTileVectors * L;
  const Product& p = t.product;
  const Axis &vertical = t.vertical, &horizontal = t.horizontal;
  const Channels channels(t, kSet, L);
  const int vectors = channels.vectors, panels = channels.panels, parts = channels.parts(t), slices = t.slices,
            columns = horizontal.outputs;
  const int64_t vector_stride = weights_of_vector(t, channels), strips = p.strips();
  Carver carver{scratch};
  const auto [pairs, dy_panel, own_sums, x_panel, patches] = WgradBench<A>(carver, t, channels);

  int64_t seen = -1;  // the strip and group that the lens is of: parts of their channels come one after another
  Lens<A> lens{};
  for (int64_t piece = begin, next; piece < end; piece = next) {
    next = piece + 1;  // a slice's parts go over its strips together, which are then brought in once
    while (next < end && next % parts && (slices > 1 || next - piece < t.parts_at_once)) next++;
    const int group = int(piece / parts % p.groups), first = int(piece % parts) * t.panels_per_piece;
    const int end_panel = first + int(next - piece) * t.panels_per_piece,
              last = end_panel < panels ? end_panel : panels;
    const int64_t slice = piece / parts / p.groups, group_vector = int64_t(group) * vectors;
    A* const piece_sums =
        slices == 1 ? own_sums
                    : sums + (slice * p.groups * vectors + group_vector + first * kTileVectors) * vector_stride;
    T* const group_dw = dw + group * t.filters.group;
    const int64_t first_strip = strips * slice / slices;
    if (!strips) {  // an empty batch
      const int k0 = first * kPanel, k1 = last * kPanel < p.width ? last * kPanel : p.width;
      std::fill_n(group_dw + k0 * t.filters.lane, (k1 - k0) * t.filters.lane, T(0));
    }
    for (int64_t strip = first_strip; strip < strips * (slice + 1) / slices; strip++) {
      const Strip s = strip_of(p, strip);
      if (seen != strip * p.groups + group)
        lens =
            t.source_in_tiles ? look_in_tiles<A>(t, x, s, group, x_panel, patches) : look<A>(t, x, s, group, x_panel);
      seen = strip * p.groups + group;
      const int rows = s.row1 - s.row0;
      Paired paired{pairs};
      Ahead ahead[2];
      int turn = 0;
      const bool more = strip + 1 < strips && p.groups == 1;
      const Strip coming = more ? strip_of(p, strip + 1) : s;
      const int64_t tiles = p.rows.kernel * TilesOf(p.columns.kernel * p.depth).count;  // of a panel
      if (more) {
        const int64_t shares = ((last - first) * tiles + 1) / 2;
        int row, reached;
        rows_reached(p, coming, row, reached);
        look_ahead(p, coming, x, p.source, p.depth, row, reached, shares, ahead[0]);
        if (p.target.w != 1)
          look_ahead(p, coming, dy, p.target, p.width, coming.row0, coming.row1 - coming.row0, shares, ahead[1]);
      }
      for (int panel = first; panel < last; panel++) {
        const int k0 = panel * kPanel, lanes = p.width - k0 < kPanel ? p.width - k0 : kPanel;
        const T* from = dy + (int64_t(group) * p.width + k0) * p.target.c + s.n0 * p.target.n + s.row0 * p.target.h;
        Grad<A> grad{dy_panel, int64_t(rows) * columns * kPanel, int64_t(columns) * kPanel, kPanel};
        bool in_memory = false;
        if constexpr (sizeof(T) == sizeof(A))
          if (t.grad_in_place) in_memory = true, grad = {from, p.target.n, p.target.h, p.target.w};
        for (int n = s.n0; n < s.n1 && !in_memory; n++)
          take_in(from + (n - s.n0) * p.target.n, p.target, rows, columns, lanes, dy_panel + (n - s.n0) * grad.n,
                  kPanel);
        if (const bool ends = panel + 1 == last; p.target.w == 1 && (!ends || more)) {
          const int next_panel = ends ? first : panel + 1, k = next_panel * kPanel;  // whose planes come next
          const Strip& then = ends ? coming : s;
          look_ahead(p, then, dy + (int64_t(group) * p.width + k) * p.target.c, p.target,
                     p.width - k < kPanel ? p.width - k : kPanel, then.row0, then.row1 - then.row0, (tiles + 1) / 2,
                     ahead[1]);
        }
        const bool last_strip = slices == 1 && strip + 1 == strips;
        if (last_strip)
          ahead[0].share(group_dw + k0 * t.filters.lane, lanes * t.filters.lane * int64_t(sizeof(T)), (tiles + 1) / 2);
        const int kept = slices == 1 ? (panel - first) % t.panels_kept : panel - first;
        A* const panel_sums = piece_sums + int64_t(kept) * kTileVectors * vector_stride;
        const int in_panel = (lanes + L - 1) / L;
        add_strip(p, vertical, horizontal, s, lens, grad, paired, ahead, turn, in_panel, panel_sums,
                  strip == first_strip);
        if (const int64_t vector = group_vector + panel * kTileVectors; last_strip)
          unpack_weights<T>(t.filters, panel_sums, 1, 0, dw, vector, vector + in_panel);
      }
    }
  }
}

}  // namespace convlab::CONVLAB_ISA::register_tiled

CONVLAB_DEFINE(register_tiled_wgrad, register_tiled::wgrad)
