// Depthwise convolution, forward and dgrad: each channel by itself, or each group of 2, 4 or 8. A tile is a run of places,
// one vector each: side by side in a row or one below the other. Vectors run over channels, or along the rows of a plane.
//
// What it does    Three taps that lie along a tile share its loads: M + 2 of them feed 3 M multiply-adds, with three
//                 vectors of weights in registers. The other taps load for themselves. channels_last is read where it
//                 lies, by pixel_bands.h, of many channels in rectangles.h, or in wide_tiles.h of a few places and vectors of
//                 channels; places come sorted by the taps that reach them, so padding costs nothing. Where many taps read
//                 pixels so far apart that the L1 would not hold them, for other types and for planes, a strip's rows are
//                 first copied between zeros. A vector of small planes is turned into pixels on the way, and back: rows of
//                 seven elements would leave most lanes without work. In groups, every lane meets the channels of its
//                 group one after another, each moved to all lanes of the group first; what a place loads and moves serves
//                 three taps.
// Against direct  a third to a half of the loads, and channels_last without gathering. Groups fill a vector together.
// What bounds it  multiply-adds and memory, about alike for 3 x 3. For planes, loads astride two cache lines;
//                 bands.h, for the usual filters, has none. In groups, with AVX-512, the port that moves lanes and
//                 multiplies as well: 10 moves for 21 multiply-adds.
#include "cpu/conv2d/depthwise/along_row.h"
#include "cpu/conv2d/depthwise/pixel_bands.h"
#include "cpu/conv2d/depthwise/rectangles.h"
#include "cpu/conv2d/depthwise/wide_tiles.h"

namespace convlab::CONVLAB_ISA::depthwise {

// M places of `lanes` channels or columns, `step` elements apart in the source. weights [R S, group, L]
template <class A, bool grouped, int M>
void tile(const Taps& taps, const Groups<A, grouped>& groups, const Ending& ending, const A* source, int64_t step,
          const A* weights, const A* bias, A* target, int64_t target_step, int lanes) {
  constexpr int L = kLanes<A>;
  Vec<A> sums[M];
#pragma GCC unroll 16
  for (int m = 0; m < M; m++) sums[m] = load<A>(bias);

  const Tap* tap = taps.list;
  for (const Tap* end = tap + taps.triples; tap < end; tap++)
    for (int i = 0; i < groups.size; i++) {
      const A *w = weights + (tap->weights + i) * L, *x = source + tap->source;
      const Vec<A> w0 = load<A>(w), w1 = load<A>(w + taps.weight_step * L), w2 = load<A>(w + 2 * taps.weight_step * L);
      const auto each = groups.lanes(i);
#pragma GCC unroll 16
      for (int j = 0; j < M + 2; j++, x += step) {
        Vec<A> value = each(load<A>(x));
        keep(value);
        if (j < M) sums[j < M ? j : 0] += w0 * value;
        if (j >= 1 && j <= M) sums[j >= 1 && j <= M ? j - 1 : 0] += w1 * value;
        if (j >= 2) sums[j >= 2 ? j - 2 : 0] += w2 * value;
      }
    }
  for (const Tap* end = tap + taps.singles; tap < end; tap++)
    for (int i = 0; i < groups.size; i++) {
      const Vec<A> w = load<A>(weights + (tap->weights + i) * L);
      const A* x = source + tap->source;
      const auto each = groups.lanes(i);
#pragma GCC unroll 16
      for (int m = 0; m < M; m++, x += step) sums[m] += w * each(load<A>(x));
    }

  activate<A>(ending, sums);
#pragma GCC unroll 16
  for (int m = 0; m < M; m++, target += target_step) store_some<A>(target, sums[m], lanes);
}

template <class A, bool grouped>
void tiles(const Taps& taps, const Groups<A, grouped>& groups, const Ending& ending, int count, const A* source,
           int64_t step, const A* weights, const A* bias, A* target, int64_t target_step, int lanes) {
  constexpr int most = grouped ? kGroupPlaces : kPlaces;
  for (int places; count > 0; count -= places, source += places * step, target += places * target_step) {
    places = next_tile(count, most);
    of_size<most>(places, [](auto m) { return &tile<A, grouped, m>; })(taps, groups, ending, source, step, weights,
                                                                       bias, target, target_step, lanes);
  }
}

// weights [R S, L]
template <class A, int R, int S, int V> void window(const Band<A>& band, const A* weights, const A* bias, A* target) {
  constexpr int L = kLanes<A>;
  Vec<A> w[R * S], sums[R][V];
#pragma GCC unroll 32
  for (int i = 0; i < R * S; i++) w[i] = load<A>(weights + i * L);
  const Vec<A> start = load<A>(bias);
  unsigned masks[V + 2];  // not read again after every store
#pragma GCC unroll 8
  for (int i = 0; i < V + 2; i++) masks[i] = band.masks[i];
  const int rows = band.rows, inside0 = band.inside0, inside1 = band.inside1;
  // Without masks the last of several vectors begins in the one before, and is stored as a whole
  constexpr bool whole = !kMasks && V > 1;
  const int last_lanes = whole ? L : band.last_lanes;
  const int64_t last = (V - 1) * L - (whole ? L - band.last_lanes : 0);
  const auto at = [&](int i) __attribute__((always_inline)) { return i < V - 1 ? i * L : last; };
  const int64_t source_row = band.source_row, target_row = band.target_row;
  const A* from = band.source;
#pragma GCC unroll 8
  for (int k = 0; k < R; k++)
#pragma GCC unroll 8
    for (int i = 0; i < V; i++) sums[k][i] = start;

  for (int t = 0; t < rows + R - 1; t++, from += source_row) {
    if (t >= inside0 && t < inside1) {
      RowVectors<A, V> row;
      load_row<A, V>(row, from, masks);
      // sums of V vectors are added to by turns: none waits for itself
      each_number<S>([&](auto s) __attribute__((always_inline)) {
#pragma GCC unroll 8
        for (int i = 0; i < V; i++) {
          Vec<A> value = neighbour<A, V, s - S / 2>(row, i, at(i));
          keep(value);
#pragma GCC unroll 8
          for (int r = 0; r < R; r++) sums[R - 1 - r][i] += w[r * S + s] * value;
        }
      });
    }
    if (t >= R - 1) {
      activate<A>(band.ending, sums[0]);
#pragma GCC unroll 8
      for (int i = 0; i < V; i++) store_some<A>(target + at(i), sums[0][i], i < V - 1 ? L : last_lanes);
      target += target_row;
    }
#pragma GCC unroll 8
    for (int i = 0; i < V; i++) {
#pragma GCC unroll 8
      for (int k = 0; k + 1 < R; k++) sums[k][i] = sums[k + 1][i];
      sums[R - 1][i] = start;
    }
  }
}

template <class A, int R, int S> auto window_of(int vectors) {
  return of_size<kBand>(vectors, [](auto v) { return &window<A, R, S, v>; });
}

// panel [rows, columns, L] -> rows of the target
template <class A, class T>
void give_pixels(const A* panel, int rows, int columns, int lanes, T* to, const Strides& strides) {
  constexpr int L = kLanes<A>;
  if (strides.c != 1) return give_back(panel, L, rows, columns, lanes, to, strides);
  for (int i = 0; i < rows; i++, to += strides.h)
    for (int j = 0; j < columns; j++, panel += L) store_some<A>(to + j * strides.w, load<A>(panel), lanes);
}

// A strip of an image whose pixels are read and written where they lie, its vectors of channels [first, last). Wide ones
// are read from end to end, a few places at a time: so few streams the hardware foresees.
template <class A, bool grouped>
void pixels_in_place(const Depthwise& d, const Groups<A, grouped>& groups, const Strip& s, const A* source,
                     const A* weights, const A* bias, A* target, int first, int last) {
  constexpr int L = kLanes<A>;
  const Strides &from = d.product.source, &to = d.product.target;
  const int64_t vector_stride = int64_t(d.kernel_taps) * L;
  const Lens<const A> x{source, from.h, from.w, 0};
  const Lens<A> y{target, to.h, to.w, 0};
  if constexpr (!grouped && !kManyRegisters)
    if (d.keeps_taps) {
      for (int vector = first, count; vector < last; vector += count) {
        count = vectors_of_turn(last - vector, kVectorsAtOnce);
        each_rectangle(d, s, x, y, [&](const Taps& taps, const Rectangle& at, const A* x, A* y) {
          const auto f = of_size<kTapsAtOnce + 1>(taps.singles + 1, [](auto t) { return &forward_taps<A, t - 1>; });
          for (int v = vector; v < vector + count; v++) {
            const int channel = first_channel(d.channels, v, L);
            f(taps.list, at, d.ending, x + channel, weights + v * vector_stride, bias + channel, y + channel);
          }
        });
      }
      return;
    }
  const int whole = last < d.channels / L ? last : d.channels / L;  // vectors before one that covers part of another
  each_run(d, s, x, y, [&](const Taps& taps, int count, const A* x, int64_t step, A* y, int64_t y_step) {
    if (grouped || whole < 2) {
      for (int v = first; v < last; v++) {
        const int channel = first_channel(d.channels, v, L);
        tiles<A>(taps, groups, d.ending, count, x + channel, step, weights + v * vector_stride, bias + channel,
                 y + channel, y_step, L);
      }
      return;
    }
    const int most = widest(taps);
    for (int places; count > 0; count -= places, x += places * step, y += places * y_step) {
      places = next_tile(count, wide_places(most));
      for (int v = first, wide; v < last; v += wide) {
        wide = v + most <= whole ? most : v + 2 <= whole ? 2 : 1;
        const int channel = first_channel(d.channels, v, L);
        const auto f = (wide == kWide ? wide_tile_of<A, kWide>(places)
                        : wide == 2   ? wide_tile_of<A, 2>(places)
                                      : wide_tile_of<A, 1>(places));
        f(taps, d.ending, x + channel, step, weights + v * vector_stride, vector_stride, bias + channel, y + channel,
          y_step);
      }
    }
  });
}

// The pieces [begin, end): images x strips x parts of the vectors of channels. weights [vectors, R S, L]; bias [channels,
// at least L]
template <class T, bool grouped>
void run_pixels_of(const Depthwise& d, const T* source, const acc_t<T>* weights, const acc_t<T>* bias, T* target,
                   int64_t begin, int64_t end, char* scratch) {
  using A = acc_t<T>;
  constexpr int L = kLanes<A>;
  const Groups<A, grouped> groups(d.group);
  const Product& p = d.product;
  const int vectors = (d.channels + L - 1) / L, lanes = d.channels < L ? d.channels : L;
  const int64_t parts = parts_of(d, vectors);
  Carver carver{scratch};
  const Bench<A> bench(carver, d, L, false);
  int64_t zeroed = 0;
  int64_t part = begin % parts, strip = begin / parts;
  Reach reach(d, strip);
  for (int64_t piece = begin; piece < end; piece++, part++) {
    if (part == parts) part = 0, reach = Reach(d, ++strip);
    const Strip& s = reach.strip;
    const int first = int(part) * d.vectors_per_piece,
              last = first + d.vectors_per_piece < vectors ? first + d.vectors_per_piece : vectors;
    const T* const from_image = source + s.n0 * p.source.n;
    T* const to_image = target + s.n0 * p.target.n;
    if constexpr (sizeof(T) == sizeof(A))
      if (d.source_in_place && d.target_in_place) {
        if constexpr (slides_over_pixels(kSet) && !grouped)
          if (d.window.rows) {
            pixel_bands<A>(d, s, from_image, weights, bias, to_image, first, last);
            continue;
          }
        pixels_in_place(d, groups, s, from_image, weights, bias, to_image, first, last);
        continue;
      }
    for (int v = first; v < last; v++) {
      const int channel = first_channel(d.channels, v, L);
      const Lens<const A> from = see(d, reach.rows, from_image + channel * p.source.c, lanes, bench.source, zeroed);
      T* const image = to_image + channel * p.target.c;
      Lens<A> to{bench.target, int64_t(p.columns.target) * L, L, s.row0};
      if constexpr (sizeof(T) == sizeof(A))
        if (d.target_in_place) to = {image, p.target.h, p.target.w, 0};
      each_run(d, s, from, to, [&](const Taps& taps, int count, const A* x, int64_t step, A* y, int64_t y_step) {
        tiles<A>(taps, groups, d.ending, count, x, step, weights + int64_t(v) * d.kernel_taps * L, bias + channel, y,
                 y_step, L);
      });
      if (!d.target_in_place)
        give_pixels(bench.target, s.row1 - s.row0, p.columns.target, lanes, image + s.row0 * p.target.h, p.target);
    }
  }
}

template <class T>
void run_pixels(const Depthwise& d, const T* source, const acc_t<T>* weights, const acc_t<T>* bias, T* target,
                int64_t begin, int64_t end, char* scratch) {
  const auto f = d.group > 1 ? &run_pixels_of<T, true> : &run_pixels_of<T, false>;
  f(d, source, weights, bias, target, begin, end, scratch);
}

// Weights of groups, lane by lane: they are few
template <class T> void pack_groups(const Filters& f, const T* w, int64_t vectors, acc_t<T>* packed) {
  using A = acc_t<T>;
  constexpr int L = kLanes<A>;
  const int channels = f.groups * f.width;
  for (int64_t v = 0; v < vectors; v++)
    for (int tap = 0; tap < f.R * f.S; tap++)
      for (int i = 0; i < f.depth; i++)
        for (int l = 0, c = first_channel(channels, v, L); l < L; l++, c++)
          *packed++ = c < channels
                          ? A(w[c / f.width * f.group + c % f.width * f.lane + i * f.depth_stride + tap * f.tap])
                          : A(0);
}

// panel [columns] -> every so many columns of a row
template <class A, class T> void give_columns(const A* from, int count, T* to, int64_t step) {
  for (int i = 0; i < count && step == 1; i += kLanes<A>) store_some<A>(to + i, load<A>(from + i), count - i);
  for (int i = 0; i < count && step != 1; i++) to[i * step] = T(from[i]);
}

// Even and odd columns, in the halves of a panel's row -> a row
template <class A, class T> void give_pairs(const A* even, const A* odd, int columns, T* to) {
  constexpr int L = kLanes<A>;
  for (int i = 0; i < columns; i += 2 * L) {
    if (i + 2 * L > columns && columns > 2 * L) i = (columns - 2 * L + 1) / 2 * 2;  // again what is written already
    const Vec<A> a = load<A>(even + i / 2), b = load<A>(odd + i / 2);
    store_some<A>(to + i, zip<A, 0>(a, b), columns - i);
    if (i + L < columns) store_some<A>(to + i + L, zip<A, 1>(a, b), columns - i - L);
  }
}

// The pieces [begin, end): images x strips x channels. weights [channels, R S]
template <class T>
void run_planes(const Depthwise& d, const T* source, const acc_t<T>* weights, const acc_t<T>* bias, T* target,
                int64_t begin, int64_t end, char* scratch) {
  using A = acc_t<T>;
  constexpr int L = kLanes<A>;
  const Product& p = d.product;
  Carver carver{scratch};
  const Bench<A> bench(carver, d, L, false);
  const int64_t out_row = panel_row(d, L);
  int64_t zeroed = 0;
  int64_t channel = begin % d.channels, strip = begin / d.channels;
  Reach reach(d, strip);
  for (int64_t piece = begin; piece < end; piece++, channel++) {
    if (channel == d.channels) channel = 0, reach = Reach(d, ++strip);
    const Strip& s = reach.strip;
    const Lens<const A> from =
        see(d, reach.rows, source + s.n0 * p.source.n + channel * p.source.c, 1, bench.source, zeroed);
    for (int t = 0; t < d.kernel_taps; t++)
      store<A>(bench.weights + t * L,
               broadcast<A>(weights[channel * d.kernel_taps + (d.window.flipped ? d.kernel_taps - 1 - t : t)]));
    store<A>(bench.bias, broadcast<A>(bias[channel]));

    T* const plane = target + s.n0 * p.target.n + channel * p.target.c;
    for (const Block* block = d.blocks; block < d.blocks + d.block_count; block++) {
      const Places r = clipped(block->rows, s.row0, s.row1), &c = block->columns;
      if (r.count <= 0) continue;
      const bool odd = d.in_pairs && c.at == 1;
      A* to = bench.target + (odd ? out_row / 2 : 0);
      int64_t row = out_row;
      if constexpr (sizeof(T) == sizeof(A))
        if (d.target_in_place) to = plane + r.at * p.target.h + c.at, row = r.at_step * p.target.h;
      if (d.long_row) {
        const auto f = of_row(d.window.columns, [](auto columns) { return &along_row<A, columns>; });
        f(d, from.at(0, 0), bench.weights, bench.bias, to);
      } else if (d.window.rows)
        each_band(d, s, from, row, [&](const Band<A>& band, int column, int vectors) {
          const auto by_vectors =
              d.window.rows == 3   ? &window_of<A, 3, 3>
              : d.window.rows == 5 ? &window_of<A, 5, 5>
                                   : of_row(d.window.columns, [](auto columns) { return &window_of<A, 1, columns>; });
          const auto f = by_vectors(vectors);
          f(band, bench.weights, bench.bias, to + column);
        });
      for (int q = 0; q < c.count && !d.window.rows; q += L) {
        if (q + L > c.count && c.count > L) q = c.count - L;
        tiles<A>(block->taps, Groups<A, false>(1), d.ending, r.count, from.at(r.from, c.from + q),
                 r.from_step * from.row, bench.weights, bench.bias, to + q, row, c.count < L ? c.count : L);
      }
      if (d.target_in_place) continue;
      for (int j = 0; j < r.count && !d.in_pairs; j++)
        give_columns(bench.target + j * out_row, c.count,
                     plane + (r.at + int64_t(j) * r.at_step) * p.target.h + c.at * p.target.w, c.at_step * p.target.w);
      for (int j = 0; j < r.count && odd; j++)
        give_pairs(bench.target + j * out_row, to + j * out_row, p.columns.target,
                   plane + (r.at + int64_t(j) * r.at_step) * p.target.h);
    }
  }
}

}  // namespace convlab::CONVLAB_ISA::depthwise

CONVLAB_DEFINE(depthwise_pixels, depthwise::run_pixels)
CONVLAB_DEFINE(depthwise_planes, depthwise::run_planes)
CONVLAB_DEFINE(pack_groups, depthwise::pack_groups)
