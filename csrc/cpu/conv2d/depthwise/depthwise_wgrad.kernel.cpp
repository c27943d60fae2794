// Depthwise wgrad: each tap's weight is the sum over all places of dy times the source under the tap.
//
// What it does    A tile's vectors of dy stay in registers while all taps go by, three at a time where one load of x
//                 serves three; or taps' sums stay there while places go by (rectangles.h). Places, blocks and panels are
//                 those of forward, or bands those of bands.h; filters of one row go along rows (along_row.h). Where
//                 channels are read in memory, a tile's places meet a kilobyte of them before the next: whole lines,
//                 one after another. Sums of a tap are vectors, of channels or of columns; the lanes of columns are
//                 added up at the end. Sums of about kChunk terms are put aside. Slices of strips are summed apart and
//                 added up in their order: the same bits for any number of threads.
// What bounds it  multiply-adds and memory, as forward.
#include "cpu/conv2d/depthwise/along_row.h"
#include "cpu/conv2d/depthwise/rectangles.h"

namespace convlab::CONVLAB_ISA::depthwise {

// sums [R S, group, L] += over M places: dy times x. Two sums a tap, so that additions need not wait for one another.
template <class A, bool grouped, int M>
void wgrad_tile(const Taps& taps, const Groups<A, grouped>& groups, const A* x, int64_t step, const A* dy,
                int64_t dy_step, A* sums) {
  constexpr int L = kLanes<A>;
  Vec<A> grad[M];
#pragma GCC unroll 16
  for (int m = 0; m < M; m++, dy += dy_step) grad[m] = load<A>(dy), keep(grad[m]);

  const Tap* tap = taps.list;
  for (const Tap* end = tap + taps.triples; tap < end; tap++)
    for (int i = 0; i < groups.size; i++) {
      const A* from = x + tap->source;
      A* const to = sums + (tap->weights + i) * L;
      const auto each = groups.lanes(i);
      Vec<A> acc[3][2] = {};
#pragma GCC unroll 3
      for (int k = 0; k < 3; k++) acc[k][0] = load<A>(to + k * taps.weight_step * L);
#pragma GCC unroll 16
      for (int j = 0; j < M + 2; j++, from += step) {
        Vec<A> value = each(load<A>(from));
        keep(value);
#pragma GCC unroll 3
        for (int k = 0; k < 3; k++)
          if (j >= k && j - k < M) acc[k][(j - k) % 2] += grad[j >= k && j - k < M ? j - k : 0] * value;
      }
#pragma GCC unroll 3
      for (int k = 0; k < 3; k++) store<A>(to + k * taps.weight_step * L, acc[k][0] + acc[k][1]);
    }
  for (const Tap* end = tap + taps.singles; tap < end; tap++)
    for (int i = 0; i < groups.size; i++) {
      const A* from = x + tap->source;
      A* const to = sums + (tap->weights + i) * L;
      const auto each = groups.lanes(i);
      Vec<A> acc[2] = {load<A>(to), Vec<A>{}};
#pragma GCC unroll 16
      for (int m = 0; m < M; m++, from += step) acc[m % 2] += grad[m] * each(load<A>(from));
      store<A>(to, acc[0] + acc[1]);
    }
}

// Of so many vectors of channels, one behind another from `first` on, place after place
template <class A, bool grouped>
void wgrad_tiles(const Depthwise& d, const Taps& taps, const Groups<A, grouped>& groups, int64_t first, int vectors,
                 int count, const A* x, int64_t step, const A* dy, int64_t dy_step, A* sums) {
  constexpr int most = grouped ? kGroupPlaces : kPlaces;
  for (int places; count > 0; count -= places, x += places * step, dy += places * dy_step) {
    places = next_tile(count, most);
    const auto f = of_size<most>(places, [](auto m) { return &wgrad_tile<A, grouped, m>; });
    each_vector(d, first, vectors, sums,
                [&](int64_t channel, A* sums) { f(taps, groups, x + channel, step, dy + channel, dy_step, sums); });
  }
}

// The same over a rectangle
template <class A, bool grouped>
void wgrad_rectangle(const Depthwise& d, const Taps& taps, const Groups<A, grouped>& groups, int64_t first, int vectors,
                     const Rectangle& at, const A* x, const A* dy, A* sums) {
  if constexpr (!grouped && !kManyRegisters)
    if (d.keeps_taps) return wgrad_singles<A>(d, taps, first, vectors, at, x, dy, sums);
  for (int row = 0; row < at.rows; row++)
    wgrad_tiles<A>(d, taps, groups, first, vectors, at.columns, x + row * at.x_row, at.x_column, dy + row * at.y_row,
                   at.y_column, sums);
}

template <class A> void add(const A* from, int64_t count, A* to) {
  for (int64_t i = 0; i < count; i++) to[i] += from[i];
}

// The pieces [begin, end): slices of strips x parts of the vectors of channels. sums [slices, vectors, R S, group, L]
template <class T, bool grouped>
void wgrad_pixels_of(const Depthwise& d, const T* dy, const T* x, acc_t<T>* sums, int64_t begin, int64_t end,
                     char* scratch) {
  using A = acc_t<T>;
  constexpr int L = kLanes<A>;
  const Groups<A, grouped> groups(d.group);
  const Product& p = d.product;
  const int vectors = (d.channels + L - 1) / L, lanes = d.channels < L ? d.channels : L;
  const int64_t parts = parts_of(d, vectors), strips = p.strips(), size = int64_t(d.kernel_taps) * L,
                at_once = vectors_at_once(d);
  Carver carver{scratch};
  const Bench<A> bench(carver, d, L, true);
  int64_t zeroed = 0;
  for (int64_t piece = begin; piece < end; piece++) {
    const int64_t slice = piece / parts, first = piece % parts * d.vectors_per_piece;
    const int64_t last = first + d.vectors_per_piece < vectors ? first + d.vectors_per_piece : vectors;
    clear(sums + (slice * vectors + first) * size, (last - first) * size);
    for (int64_t strip = strips * slice / d.slices; strip < strips * (slice + 1) / d.slices; strip++)
      for (int64_t vector = first, count; vector < last; vector += count) {
        count = vectors_of_turn(int(last - vector), at_once);
        const int channel = first_channel(d.channels, vector, L);
        const Reach reach(d, strip);
        const Strip& s = reach.strip;
        const Lens<const A> from =
            see(d, reach.rows, x + s.n0 * p.source.n + channel * p.source.c, lanes, bench.source, zeroed);
        const T* const image = dy + s.n0 * p.target.n + channel * p.target.c;
        Lens<const A> grad{bench.target, int64_t(p.columns.target) * L, L, s.row0};
        if constexpr (sizeof(T) == sizeof(A))
          if (d.target_in_place) grad = {image, p.target.h, p.target.w, 0};
        if (!d.target_in_place)
          take_in(image + s.row0 * p.target.h, p.target, s.row1 - s.row0, p.columns.target, lanes, bench.target, L);

        const auto put_aside = [&] {
          for (int v = 0; v < count; v++) {
            const int64_t covered =  // lanes that the vector before has as well
                d.channels > L ? (vector + v) * L - first_channel(d.channels, vector + v, L) : 0;
            add(bench.sums + v * size + covered, size, sums + (slice * vectors + vector + v) * size);
          }
          clear(bench.sums, count * size);
        };
        clear(bench.sums, count * size);
        int64_t terms = 0;
        each_rectangle(d, s, from, grad, [&](const Taps& taps, const Rectangle& at, const A* x, const A* dy) {
          wgrad_rectangle<A>(d, taps, groups, vector, count, at, x, dy, bench.sums);
          terms += at.rows * at.columns;
          if (terms >= kChunk) put_aside(), terms = 0;
        });
        put_aside();
      }
  }
}

template <class T>
void wgrad_pixels(const Depthwise& d, const T* dy, const T* x, acc_t<T>* sums, int64_t begin, int64_t end,
                  char* scratch) {
  const auto f = d.group > 1 ? &wgrad_pixels_of<T, true> : &wgrad_pixels_of<T, false>;
  f(d, dy, x, sums, begin, end, scratch);
}

// sums [taps, L] -> their lanes added up, for each tap; `rest`: the same, of which only lanes first, first + 1, ... end
// - 1 count
template <class A> void add_lanes(const A* sums, const A* rest, int first, int end, int taps, A* to) {
  constexpr int L = kLanes<A>;
  A counted[L];
  for (int l = 0; l < L; l++) counted[l] = l >= first && l < end ? A(1) : A(0);
  const auto counts = load<A>(counted) != Vec<A>{};
  for (int t = 0; t < taps; t += L) {
    Vec<A> block[L];
#pragma GCC unroll 16
    for (int l = 0; l < L; l++)
      block[l] =
          t + l < taps ? load<A>(sums + (t + l) * L) + (counts ? load<A>(rest + (t + l) * L) : Vec<A>{}) : Vec<A>{};
    transpose<A>(block);
#pragma GCC unroll 16
    for (int step = L / 2; step >= 1; step /= 2)
#pragma GCC unroll 16
      for (int l = 0; l < step; l++) block[l] += block[l + step];
    store_some<A>(to + t, block[0], taps - t);
  }
}

// sums [R R, L] += dy times x
template <class A, int R, int V> void window_wgrad(const Band<A>& band, const A* dy, A* sums) {
  constexpr int L = kLanes<A>;
  Vec<A> acc[R * R], grad[R][V] = {};
#pragma GCC unroll 32
  for (int i = 0; i < R * R; i++) acc[i] = load<A>(sums + i * L);
  A counted[L];  // lanes past the end of a row may hold anything in x, infinity too: they must not meet dy's zeros
  for (int l = 0; l < L; l++) counted[l] = l < band.last_lanes ? A(1) : A(0);
  const auto counts = load<A>(counted) != Vec<A>{};
  const unsigned mask = inside(0, band.last_lanes, L);
  unsigned masks[V + 2];
#pragma GCC unroll 8
  for (int i = 0; i < V + 2; i++) masks[i] = band.masks[i];
  const A* from = band.source;
  for (int t = 0; t < band.rows + R - 1; t++, from += band.source_row, dy += band.target_row) {
#pragma GCC unroll 8
    for (int i = 0; i < V; i++) {
#pragma GCC unroll 8
      for (int k = 0; k + 1 < R; k++) grad[k][i] = grad[k + 1][i];
      grad[R - 1][i] = t >= band.rows ? Vec<A>{} : i < V - 1 ? load<A>(dy + i * L) : load_masked<A>(dy + i * L, mask);
    }
    if (t < band.inside0 || t >= band.inside1) continue;
    RowVectors<A, V> row;
    load_row<A, V>(row, from, masks);
#pragma GCC unroll 8
    for (int i = 0; i < V; i++)
      each_number<R>([&](auto s) __attribute__((always_inline)) {
        Vec<A> value = neighbour<A, V, s - R / 2>(row, i, i * L);
        if (i == V - 1) value = counts ? value : Vec<A>{};
        keep(value);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) acc[r * R + s] += grad[R - 1 - r][i] * value;
      });
  }
#pragma GCC unroll 32
  for (int i = 0; i < R * R; i++) store<A>(sums + i * L, acc[i]);
}

// The pieces [begin, end): slices of strips x channels. sums [slices, channels, R S]
template <class T>
void wgrad_planes(const Depthwise& d, const T* dy, const T* x, acc_t<T>* sums, int64_t begin, int64_t end,
                  char* scratch) {
  using A = acc_t<T>;
  constexpr int L = kLanes<A>;
  const Product& p = d.product;
  const Block& block = d.blocks[0];  // forward's only one
  const int64_t strips = p.strips(), size = int64_t(d.kernel_taps) * L;
  const int columns = p.columns.target, rest = columns % L;
  const bool dy_in_place =
      d.target_in_place && (d.window.rows > 1 ? kMasks || rest == 0 : d.window.rows || columns >= L);
  Carver carver{scratch};
  const Bench<A> bench(carver, d, L, true);
  const RowPanel dy_panel{0, 1, int(round_up(columns, L))};
  if (!dy_in_place) clear(bench.target, p.rows_per_strip * dy_panel.length());
  int64_t zeroed = 0;
  for (int64_t piece = begin; piece < end; piece++) {
    const int64_t slice = piece / d.channels, channel = piece % d.channels;
    clear(bench.total, 2 * size);
    for (int64_t strip = strips * slice / d.slices; strip < strips * (slice + 1) / d.slices; strip++) {
      const Reach reach(d, strip);
      const Strip& s = reach.strip;
      const T* const plane = dy + s.n0 * p.target.n + channel * p.target.c;
      Lens<const A> grad{bench.target, dy_panel.length(), 1, s.row0};
      if constexpr (sizeof(T) == sizeof(A))
        if (dy_in_place) grad = {plane, p.target.h, 1, 0};
      for (int row = s.row0; row < s.row1 && !dy_in_place; row++)
        take_columns(dy_panel, plane + row * p.target.h, p.target.w, columns, bench.target + (row - s.row0) * grad.row);
      const Lens<const A> from =
          see(d, reach.rows, x + s.n0 * p.source.n + channel * p.source.c, 1, bench.source, zeroed);

      clear(bench.sums, 2 * size);
      if (d.window.rows == 1) {
        const auto f = of_row(d.window.columns, [](auto columns) { return &along_row_wgrad<A, columns>; });
        for (int row = s.row0; row < s.row1; row++)
          if (const int h = row + d.window.row_offset; h >= 0 && h < p.rows.source)
            f(d, from.at(h, 0), grad.at(row, 0), bench.sums);
      } else if (d.window.rows) {
        each_band(d, s, from, grad.row, [&](const Band<A>& band, int column, int vectors) {
          const auto f = d.window.rows == 3 ? of_size<kBand>(vectors, [](auto v) { return &window_wgrad<A, 3, v>; })
                                            : of_size<kBand>(vectors, [](auto v) { return &window_wgrad<A, 5, v>; });
          f(band, grad.at(s.row0, column), bench.sums);
        });
      }
      const Places r = clipped(block.rows, s.row0, s.row1);
      for (int q = 0; q < columns && !d.window.rows; q += L) {
        const bool last = q + L > columns;
        if (last && columns > L) q = columns - L;
        wgrad_rectangle<A>(d, block.taps, Groups<A, false>(1), 0, 1,
                           {1, r.count, 0, r.from_step * from.row, 0, grad.row}, from.at(r.from, q), grad.at(r.at, q),
                           bench.sums + (last ? size : 0));
      }
      add(bench.sums, 2 * size, bench.total);
    }
    add_lanes(bench.total, bench.total + size, columns > L ? L - rest : 0, columns > L ? L : rest, d.kernel_taps,
              sums + piece * d.kernel_taps);
  }
}

}  // namespace convlab::CONVLAB_ISA::depthwise

CONVLAB_DEFINE(depthwise_pixels_wgrad, depthwise::wgrad_pixels)
CONVLAB_DEFINE(depthwise_planes_wgrad, depthwise::wgrad_planes)
