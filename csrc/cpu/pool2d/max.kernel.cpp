// Max pooling. NaN beats everything, and the last NaN beats the others; of equals the first wins.
#include "cpu/pool2d/walk.h"

namespace convlab::CONVLAB_ISA {

// x -> y, and which tap won, unless M is void
template <class A, class T, class M> struct Largest {
  const T* x;
  T* y;
  M* offsets;

  void begin(int, int) {}

  template <int U>
  CONVLAB_INLINE void run(const Taps& taps, int64_t at, int64_t step, int64_t to, int64_t to_step) const {
    Vec<A> best[U];
    Integers<A> winner[U];
#pragma GCC unroll 4
    for (int u = 0; u < U; u++) {
      best[u] = taps.begun ? load_as<A>(y + to + u * to_step) : broadcast<A>(-A(__builtin_inff()));
      if constexpr (!std::is_void_v<M>)
        winner[u] = taps.begun ? load_integers<A>(offsets + to + u * to_step) : integers<A>(taps.first);
    }
    each_tap(taps, at, [&](int64_t where, int tap) __attribute__((always_inline)) {
#pragma GCC unroll 4
      for (int u = 0; u < U; u++) {
        const Vec<A> value = load_as<A>(x + where + u * step);
        const auto wins = (value > best[u]) | (value != value);
        best[u] = wins ? value : best[u];
        if constexpr (!std::is_void_v<M>) winner[u] = wins ? integers<A>(tap) : winner[u];
      }
    });
#pragma GCC unroll 4
    for (int u = 0; u < U; u++) {
      store_as<A>(y + to + u * to_step, best[u]);
      if constexpr (!std::is_void_v<M>) store_integers<A>(offsets + to + u * to_step, winner[u]);
    }
  }
};

// x -> y, offsets
template <class T, class M>
void forward(const Pooling& g, const T* x, T* y, M* offsets, int64_t begin, int64_t end, char* scratch) {
  using A = acc_t<T>;
  using Panel = std::conditional_t<std::is_void_v<M>, uint8_t, M>;
  constexpr int L = kLanes<A>;
  const int H = g.rows.sources, W = g.columns.sources, P = g.rows.targets, Q = g.columns.targets;
  const int64_t C = g.channels;
  Carver carver{scratch};
  const auto bench = pool_memory<A>(carver, g, L);
  for (int64_t i = begin; i < end; i++) {
    const Piece p = piece_of(g, i, L);
    if (g.in_place) {
      const int64_t to = in_place(g, p, P, Q, p.t0);
      Largest<A, T, M> op{x + in_place(g, p, H, W, 0), y + to, offsets};
      if constexpr (!std::is_void_v<M>) op.offsets += to;
      walk<A>(g, op, {W * C, C}, {Q * C, C}, p.channels, p.t0, p.t1, 0, H);
      continue;
    }
    const Planes<A> to(g, p.plane, int64_t(P) * Q, int64_t(p.t0) * Q);
    Panel* const winners = reinterpret_cast<Panel*>(bench.offsets);
    each_panel(g, p, [&](int s0, int s1) {
      take_in(Planes<A>(g, p.plane, int64_t(H) * W, int64_t(s0) * W), x, int64_t(s1 - s0) * W, bench.source);
      Largest<A, A, M> op{bench.source, bench.target, winners};
      walk<A>(g, op, {int64_t(W) * L, L}, {int64_t(Q) * L, L}, L, p.t0, p.t1, s0, s1);
    });
    give_back(to, bench.target, int64_t(p.t1 - p.t0) * Q, y);
    if constexpr (!std::is_void_v<M>) give_back(to, winners, int64_t(p.t1 - p.t0) * Q, offsets);
  }
}

template <class T>
void max_forward(const Pooling& g, const T* x, T* y, void* offsets, int64_t begin, int64_t end, char* scratch) {
  if (!offsets) forward(g, x, y, offsets, begin, end, scratch);
  else if (g.byte_offsets) forward(g, x, y, static_cast<uint8_t*>(offsets), begin, end, scratch);
  else forward(g, x, y, static_cast<int32_t*>(offsets), begin, end, scratch);
}

// dy, offsets -> dx: what taps won
template <class A, class T, class M> struct Won {
  const T* dy;
  const M* offsets;
  T* dx;

  void begin(int, int) {}

  template <int U>
  CONVLAB_INLINE void run(const Taps& taps, int64_t at, int64_t step, int64_t to, int64_t to_step) const {
    Vec<A> sum[U] = {};
    each_tap(taps, at, [&](int64_t where, int tap) __attribute__((always_inline)) {
#pragma GCC unroll 4
      for (int u = 0; u < U; u++) {
        const Vec<A> v = load_as<A>(dy + where + u * step);
        sum[u] += load_integers<A>(offsets + where + u * step) == integers<A>(tap) ? v : Vec<A>{};
      }
    });
#pragma GCC unroll 4
    for (int u = 0; u < U; u++) store_as<A>(dx + to + u * to_step, sum[u]);
  }
};

// In place
template <class T, class M>
void gather(const Pooling& g, const T* dy, const M* offsets, T* dx, int64_t begin, int64_t end) {
  using A = acc_t<T>;
  const int H = g.rows.targets, W = g.columns.targets, P = g.rows.sources, Q = g.columns.sources;
  const int64_t C = g.channels;
  for (int64_t i = begin; i < end; i++) {
    const Piece p = piece_of(g, i, kLanes<A>);
    const int64_t from = in_place(g, p, P, Q, 0);
    Won<A, T, M> op{dy + from, offsets + from, dx + in_place(g, p, H, W, p.t0)};
    walk<A>(g, op, {Q * C, C}, {W * C, C}, p.channels, p.t0, p.t1, 0, P);
  }
}

template <class T>
void max_gather(const Pooling& g, const T* dy, const void* offsets, T* dx, int64_t begin, int64_t end, char*) {
  if (g.byte_offsets) gather(g, dy, static_cast<const uint8_t*>(offsets), dx, begin, end);
  else gather(g, dy, static_cast<const int32_t*>(offsets), dx, begin, end);
}

// ---- by windows ----

// Offsets are the caller's data: what is none of the window's counts as the first.
CONVLAB_INLINE int32_t place_of(const int32_t* places, int64_t, uint8_t offset) { return places[offset]; }
CONVLAB_INLINE int32_t place_of(const int32_t* places, int64_t taps, int32_t offset) {
  return places[uint32_t(offset) < taps ? offset : 0];
}

// A row of outputs of n channels, `pixel` apart. Sums of an output's first tap begin at `sums`, of the next `step` on.
template <int kChannels, class A, class T, class M>
[[gnu::noinline]] void scatter_row(const int32_t* places, int64_t taps, const T* dy, const M* offsets, int64_t pixel,
                                   int outputs, int some, A* sums, int64_t step) {
  const int n = kChannels ? kChannels : some;
  for (int q = 0; q < outputs; q++, dy += pixel, offsets += pixel, sums += step)
    for (int c = 0; c < n; c++) sums[place_of(places, taps, offsets[c]) + c] += A(dy[c]);
}

// n elements, with a vector's room behind `from`
template <class A, class T> CONVLAB_INLINE void copy_out(const A* from, int64_t n, T* to) {
  constexpr int L = kLanes<A>;
  int64_t i = 0;
  for (; i + L <= n; i += L) store_as<A>(to + i, load<A>(from + i));
  if (i < n && n > L) i = n - L, store_as<A>(to + i, load<A>(from + i)), i = n;
  for (; i < n; i++) to[i] = T(from[i]);
}

template <class T, class M>
void scatter(const Scattering& g, const T* dy, const M* offsets, T* dx, int64_t begin, int64_t end, char* scratch) {
  using A = acc_t<T>;
  const Axis &rows = g.rows, &columns = g.columns;
  const int H = rows.size, W = columns.size, P = rows.outputs, Q = columns.outputs;
  const int64_t C = g.channels, taps = int64_t(rows.kernel) * columns.kernel;
  Carver carver{scratch};
  const auto bench = scatter_memory<A>(carver, g);
  const int64_t strips = (H + g.rows_each - 1) / g.rows_each, blocks = (C + g.channels_each - 1) / g.channels_each;
  int n_of_places = 0;
  for (int64_t i = begin; i < end; i++) {
    const int h0 = int(i % strips) * g.rows_each, h1 = int(smaller(h0 + g.rows_each, H));
    const int64_t image = i / strips / blocks, channel = i / strips % blocks * g.channels_each;
    const int n = int(smaller(g.channels_each, C - channel));
    if (n != n_of_places) {
      n_of_places = n;
      int32_t* place = bench.places;
      for (int r = 0; r < rows.kernel; r++)
        for (int s = 0; s < columns.kernel; s++)
          *place++ = (r * rows.dilation * g.width + s * columns.dilation) * n;
      for (int64_t t = taps; t < 256; t++) *place++ = 0;
    }
    // the outputs whose windows reach rows [h0, h1), and the rows that these windows reach
    const int reach = (rows.kernel - 1) * rows.dilation;
    const int p0 = int(larger(0, (h0 + rows.pad - reach + rows.stride - 1) / rows.stride)),
              p1 = int(smaller(P, (h1 - 1 + rows.pad) / rows.stride + 1));
    const int top = int(smaller(h0, p0 * rows.stride - rows.pad)),
              bottom = int(larger(h1, (p1 - 1) * rows.stride - rows.pad + reach + 1));
    const int64_t row = int64_t(g.width) * n;
    __builtin_memset(bench.sums, 0, sizeof(A) * size_t((bottom - top) * row));
    for (int p = p0; p < p1; p++) {
      const int64_t from = (image * P + p) * Q * C + channel;
      A* const sums = bench.sums + (p * rows.stride - rows.pad - top) * row;
      (n == 1 ? scatter_row<1, A, T, M> : scatter_row<0, A, T, M>)(bench.places, taps, dy + from, offsets + from, C, Q,
                                                                   n, sums, columns.stride * n);
    }
    const A* from = bench.sums + (h0 - top) * row + columns.pad * n;
    T* to = dx + (image * H + h0) * W * C + channel;
    if (n == C && g.width == W) copy_out(from, (h1 - h0) * row, to);
    else
      for (int h = h0; h < h1; h++, from += row, to += W * C) {
        if (n == C) copy_out(from, W * C, to);
        else
          for (int w = 0; w < W; w++) copy_out(from + w * n, n, to + w * C);
      }
  }
}

template <class T>
void max_scatter(const Scattering& g, const T* dy, const void* offsets, T* dx, int64_t begin, int64_t end,
                 char* scratch) {
  if (g.byte_offsets) scatter(g, dy, static_cast<const uint8_t*>(offsets), dx, begin, end, scratch);
  else scatter(g, dy, static_cast<const int32_t*>(offsets), dx, begin, end, scratch);
}

}  // namespace convlab::CONVLAB_ISA

CONVLAB_DEFINE(max_forward, max_forward)
CONVLAB_DEFINE(max_gather, max_gather)
CONVLAB_DEFINE(max_scatter, max_scatter)
