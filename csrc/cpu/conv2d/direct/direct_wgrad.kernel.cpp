// wgrad along rows, direct: dy's rows times x's rows, vector by vector, for a tile of output channels times taps; the
// lanes of a sum are added up at the end.
//
// What it does    The rows of a strip lie in panels as in direct.h, x between zeros on all sides, so that every tap
//                 meets all of dy. Slices of strips are summed apart and added up in their order: the same bits for any
//                 number of threads.
// What bounds it  loads: K + V of them for K V multiply-adds, those of x astride two cache lines. For many channels
//                 `register_tiled` broadcasts instead.
#include "cpu/conv2d/direct/row_panels.h"
#include "cpu/conv2d/direct/tiles.h"

namespace convlab::CONVLAB_ISA::direct {

// Whole vectors of rows, and the last ones of rows that do not fill them. bounded: these may reach past a tensor, and are
// read as far as they go, which takes longer.
struct Steps {
  const Step *whole, *last;
  int whole_count, last_count, last_lanes;
  bool bounded;
};

// sums [K, taps in all, L] += over steps: dy of K channels, `dy_channel` apart, times V taps of x
template <class A, int K, int V>
void wgrad_tile(const Steps& steps, const A* dy, int64_t dy_channel, const A* x, const int64_t* places, A* sums,
                int64_t k_stride) {
  constexpr int L = kLanes<A>;
  Vec<A> acc[K][V] = {};
  const A* from[V];
#pragma GCC unroll 9
  for (int v = 0; v < V; v++) from[v] = x + places[v];
  const auto add = [&](const Step& step, auto loaded) __attribute__((always_inline)) {
    const ChannelAddresses<A, K> grads(dy + step.dy, dy_channel);
    add_products<A>(
        acc, [&](int k) __attribute__((always_inline)) { return loaded(grads.at(k)); },
        [&](int v) __attribute__((always_inline)) { return loaded(from[v] + step.x); });
  };
  for (int i = 0; i < steps.whole_count; i++) add(steps.whole[i], [](const A* at) { return load<A>(at); });
  if (steps.bounded)
    for (int i = 0; i < steps.last_count; i++)
      add(steps.last[i], [&](const A* at) { return load_some<A>(at, steps.last_lanes); });
  else if (steps.last_count) {
    A kept[L];  // lanes past the end of a row may hold anything, infinity too
    for (int l = 0; l < L; l++) kept[l] = l < steps.last_lanes ? A(1) : A(0);
    const auto in_row = load<A>(kept) != Vec<A>{};
    for (int i = 0; i < steps.last_count; i++)
      add(steps.last[i], [&](const A* at) { return in_row ? load<A>(at) : Vec<A>{}; });
  }
#pragma GCC unroll 8
  for (int k = 0; k < K; k++)
#pragma GCC unroll 9
    for (int v = 0; v < V; v++) {
      A* to = sums + k * k_stride + v * L;
      store<A>(to, load<A>(to) + acc[k][v]);
    }
}

// dy [images, channels, rows, columns] -> panel, with rows of whole vectors, zero past their end
template <class A, class T>
void take_grad(const T* dy, const Strides& strides, int images, int channels, int rows, int columns, A* panel) {
  constexpr int L = kLanes<A>;
  const int64_t length = round_up(columns, L), channel = rows * length;
  const bool turn = strides.c == 1 && strides.w != 1;
  for (int n = 0; n < images; n++, dy += strides.n, panel += channels * channel) {
    for (int row = 0; row < rows && turn; row++)
      transpose_in(dy + row * strides.h, strides.w, columns, channels, panel + row * length, channel);
    for (int k = 0; k < channels && !turn; k++)
      for (int row = 0; row < rows; row++)
        for (int q = 0; q < columns; q += L)
          store<A>(panel + k * channel + row * length + q,
                   load_some<A>(dy + k * strides.c + row * strides.h + q, columns - q));
  }
}

// sums [count, L] -> out [count]: L of them are turned and added at a time
template <class A> void add_lanes(const A* sums, int64_t count, A* out) {
  constexpr int L = kLanes<A>;
  for (int64_t i = 0; i < count; i += L) {
    const int here = count - i < L ? int(count - i) : L;
    Vec<A> block[L];
    for (int l = 0; l < L; l++) block[l] = l < here ? load<A>(sums + (i + l) * L) : Vec<A>{};
    transpose<A>(block);
    for (int l = 1; l < L; l++) block[0] += block[l];
    store_some<A>(out + i, block[0], here);
  }
}

// The pieces [begin, end): slices of strips x groups. partial [slices, groups, width, depth R S]
template <class T>
void wgrad(const RowProduct& rp, const T* dy, const T* x, acc_t<T>* partial, int64_t begin, int64_t end,
           char* scratch) {
  using A = acc_t<T>;
  constexpr int L = kLanes<A>;
  const Product& p = rp.product;
  const Axis& vertical = rp.vertical;
  const int slices = rp.slices;
  const int columns = p.columns.target, vectors = (columns + L - 1) / L,
            tap_count = p.depth * p.rows.kernel * p.columns.kernel;
  const int64_t strips = p.strips();
  Carver carver{scratch};
  const auto [places, steps, sums, dy_panel, turned, x_panel] = WgradBench<A>(carver, rp, L);
  int64_t zeroed = 0;

  for (int64_t piece = begin; piece < end; piece++) {
    const int group = int(piece % p.groups);
    const int64_t slice = piece / p.groups;
    for (int64_t i = 0; i < int64_t(p.width) * tap_count * L; i++) sums[i] = 0;
    for (int64_t strip = strips * slice / slices; strip < strips * (slice + 1) / slices; strip++) {
      const Strip s = strip_of(p, strip);
      const int rows = s.row1 - s.row0, first = s.row0 * vertical.stride - vertical.pad;
      const int x_rows = rows_met(vertical, rows);
      const int64_t row = int64_t(vectors) * L;
      const Field<A> field =
          look<A>(rp, x + int64_t(group) * p.depth * p.source.c, s, p.depth, first, x_rows, x_panel, turned, zeroed);
      const T* const from = dy + int64_t(group) * p.width * p.target.c + s.n0 * p.target.n + s.row0 * p.target.h;
      Field<A> grad{dy_panel, p.width * rows * row, rows * row, row, s.n0, s.row0};
      const int64_t last_row =
          (s.n1 - 1) * p.target.n + (int64_t(group + 1) * p.width - 1) * p.target.c + (s.row1 - 1) * p.target.h;
      bool in_place = false, bounded = rp.in_place;
      if constexpr (sizeof(T) == sizeof(A))
        if (p.target.w == 1) {
          in_place = true, bounded |= last_row + row > p.images * p.target.n;
          grad = {from, p.target.n, p.target.c, p.target.h, s.n0, s.row0};
        }
      if (!in_place) take_grad<A>(from, p.target, s.n1 - s.n0, p.width, rows, columns, dy_panel);
      int tap = 0;
      for (int c = 0; c < p.depth; c++)
        for (int r = 0; r < p.rows.kernel; r++)
          for (int t = 0; t < p.columns.kernel; t++)
            places[tap++] = c * field.channel + int64_t(r) * vertical.dilation * field.row + rp.phases[0].places[t];

      const int whole = columns / L;
      Steps all{steps, steps + rows * whole, rows * whole, whole < vectors ? rows : 0, columns % L, bounded};
      for (int row = 0; row < rows; row++)
        for (int i = 0; i < vectors; i++)
          steps[i < whole ? row * whole + i : rows * whole + row] = {int(row * grad.row + i * L),
                                                                     int(row * vertical.stride * field.row + i * L)};
      for (int n = s.n0; n < s.n1; n++) {
        const A* const image = field.data + (n - field.n0) * field.image + (first - field.row0) * field.row;
        for (int k = 0, channels; k < p.width; k += channels) {
          channels = channels_of_tile(p.width - k, kSums);
          for (int t = 0, taken = 1; t < tap_count; t += taken) {
            const auto f = largest_tile<9, 6, 4, 3, 2, 1>(channels, tap_count - t, taken,
                                                          [](auto k, auto v) { return &wgrad_tile<A, k, v>; });
            f(all, grad.data + (n - grad.n0) * grad.image + k * grad.channel, grad.channel, image, places + t,
              sums + (int64_t(k) * tap_count + t) * L, int64_t(tap_count) * L);
          }
        }
      }
    }
    add_lanes(sums, int64_t(p.width) * tap_count, partial + piece * p.width * tap_count);
  }
}

}  // namespace convlab::CONVLAB_ISA::direct

CONVLAB_DEFINE(direct_wgrad, direct::wgrad)
