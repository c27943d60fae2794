// Max pooling. NaN beats everything, and the last NaN beats the others; of equals the first wins.
#include "cpu/pool2d/walk.h"

namespace convlab::CONVLAB_ISA {

// x -> y, and which tap won, unless M is void
template <class A, class T, class M, int kWide = 1> struct Largest {
  static constexpr int kSource = kWide, kUnrolled = kWide == 4 ? 2 : 4;
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
    const auto take = [&](int u, Vec<A> value, int tap) __attribute__((always_inline)) {
      const auto stays = ~(value > best[u]) & (value == value);
      best[u] = stays ? best[u] : value;
      if constexpr (!std::is_void_v<M>) winner[u] = stays ? winner[u] : integers<A>(tap);
    };
    each_tap(taps, at, [&](int64_t where, int tap) __attribute__((always_inline)) {
#pragma GCC unroll 4
      for (int u = 0; u < U; u++) {
        each_column<A, kWide>(x + where + u * step, [&](int s, Vec<A> v) { take(u, v, tap + s); });
      }
    });
#pragma GCC unroll 4
    for (int u = 0; u < U; u++) {
      store_as<A>(y + to + u * to_step, best[u]);
      if constexpr (!std::is_void_v<M>) store_integers<A>(offsets + to + u * to_step, winner[u]);
    }
  }
};

template <class M> CONVLAB_INLINE M* offsets_from(M* offsets, int64_t first) {
  if constexpr (std::is_void_v<M>) return nullptr;
  else return offsets + first;
}

template <class A, int kWide, class T, class M>
void forward_in_place(const Pooling& g, const Piece& p, const T* x, T* y, M* offsets) {
  Largest<A, T, M, kWide> op{x, y, offsets};
  op.x += source_of<decltype(op)>(g, p), op.y += target_of(g, p);
  if constexpr (!std::is_void_v<M>) op.offsets += target_of(g, p);
  walk_in_place<A>(g, p, op);
}

// ---- planes of one window ----

// The largest so far, and where it lies
template <class A> struct BestPlace {
  Vec<A> value;
  Integers<A> at;

  CONVLAB_INLINE void take(Vec<A> v, Integers<A> v_at) {
    const auto stays = ~(v > value) & (v == v);
    value = stays ? value : v, at = stays ? at : v_at;
  }
  // of elements in any order
  CONVLAB_INLINE void take(const BestPlace& other) {
    const auto nan = other.value != other.value, mine = value != value;
    const auto wins =
        (other.value > value) | ((other.value == value) & (other.at < at)) | (nan & (~mine | (other.at > at)));
    value = wins ? other.value : value, at = wins ? other.at : at;
  }
};

// x [count planes of n >= L elements] -> y, offsets [count]: a vector's lanes look at every L-th element of a plane; then
// the lanes of a vector of planes are turned and compared.
template <class T, class M> [[gnu::noinline]] void whole_planes(const T* x, int64_t n, int count, T* y, M* offsets) {
  using A = acc_t<T>;
  constexpr int L = kLanes<A>;
  Integers<A> lanes;
  for (int l = 0; l < L; l++) lanes[l] = l;
  Vec<A> values[L], places[L];
  for (int l = 0; l < L; l++) {
    const T* const plane = x + smaller(l, count - 1) * n;
    BestPlace<A> best{broadcast<A>(-A(__builtin_inff())), lanes};
    for (int64_t i = 0; i < n; i += L) {
      i = smaller(i, n - L);
      best.take(load_as<A>(plane + i), lanes + integers<A>(int(i)));
    }
    values[l] = best.value, places[l] = (Vec<A>)best.at;
  }
  transpose<A>(values);
  transpose<A>(places);
  BestPlace<A> all{values[0], (Integers<A>)places[0]};
  for (int l = 1; l < L; l++) all.take({values[l], (Integers<A>)places[l]});
  store_some<A>(y, all.value, count);
  if constexpr (!std::is_void_v<M>) store_some_integers<A>(offsets, all.at, count);
}

// x -> y, offsets, of windows of 2 x 2 whose rows do not fill a vector
template <class T, class M> void narrow_rows(const Pooling& g, const Piece& p, const T* x, T* y, M* offsets) {
  using A = acc_t<T>;
  each_narrow_row<A>(g, p, x,
                     [&](const Vec<A>(&taps)[4], auto packed, int64_t to, int lanes) __attribute__((always_inline)) {
                       BestPlace<A> best{broadcast<A>(-A(__builtin_inff())), integers<A>(0)};
#pragma GCC unroll 4
                       for (int tap = 0; tap < 4; tap++) best.take(taps[tap], integers<A>(tap));
                       store_some<A>(y + to, packed(best.value), lanes);
                       if constexpr (!std::is_void_v<M>)
                         store_some_integers<A>(offsets + to, (Integers<A>)packed((Vec<A>)best.at), lanes);
                     });
}

// x -> y, offsets
template <class T, class M>
void forward(const Pooling& g, const T* x, T* y, M* offsets, int64_t begin, int64_t end, char* scratch) {
  using A = acc_t<T>;
  using Winner = std::conditional_t<std::is_void_v<M>, uint8_t, M>;
  const int64_t W = g.columns.sources, Q = g.columns.targets;
  Carver carver{scratch};
  const auto bench = pool_memory<A>(carver, g, kLanes<A>);
  for (int64_t i = begin; i < end; i++) {
    const Piece p = piece_of(g, i);
    if constexpr (!std::is_same_v<M, int32_t>) {  // windows of few taps
      if (g.wide > 1) {
        if (g.wide == 4) forward_in_place<A, 4>(g, p, x, y, offsets);
        else forward_in_place<A, 2>(g, p, x, y, offsets);
        continue;
      }
      if (g.narrow) {
        narrow_rows(g, p, x, y, offsets);
        continue;
      }
    }
    if (g.in_place) {
      forward_in_place<A, 1>(g, p, x, y, offsets);
      continue;
    }
    if (const int64_t n = g.rows.sources * W; g.whole && n >= kLanes<A>) {
      const int count = int(smaller(kLanes<A>, g.planes - p.plane));
      whole_planes(x + p.plane * n, n, count, y + p.plane, offsets_from(offsets, p.plane));
      continue;
    }
    Winner* const winners = reinterpret_cast<Winner*>(bench.offsets);
    each_panel(g, p, [&](int s0, int s1) {
      take_in(Planes<A>(g, p.plane, g.rows.sources * W, s0 * W), x, (s1 - s0) * W, bench.source);
      walk_panels<A>(g, p, Largest<A, A, M>{bench.source, bench.target, static_cast<M*>(winners)}, s0, s1);
    });
    const Planes<A> to(g, p.plane, g.rows.targets * Q, p.t0 * Q);
    give_back(to, bench.target, (p.t1 - p.t0) * Q, y);
    if constexpr (!std::is_void_v<M>) give_back(to, winners, (p.t1 - p.t0) * Q, offsets);
  }
}

template <class T>
void max_forward(const Pooling& g, const T* x, T* y, void* offsets, int64_t begin, int64_t end, char* scratch) {
  if (!offsets) forward(g, x, y, offsets, begin, end, scratch);
  else if (g.byte_offsets) forward(g, x, y, static_cast<uint8_t*>(offsets), begin, end, scratch);
  else forward(g, x, y, static_cast<int32_t*>(offsets), begin, end, scratch);
}

// ---- the gradient, asking each window: in place, and of windows of few taps, whose offsets are bytes ----

// dy, offsets -> dx: what taps won
template <class A, class T> struct Won {
  static constexpr int kSource = 1, kUnrolled = 4;
  const T* dy;
  const uint8_t* offsets;
  T* dx;

  void begin(int, int) {}

  template <int U>
  CONVLAB_INLINE void run(const Taps& taps, int64_t at, int64_t step, int64_t to, int64_t to_step) const {
    Vec<A> sum[U] = {};
    each_tap(taps, at, [&](int64_t where, int tap) __attribute__((always_inline)) {
#pragma GCC unroll 4
      for (int u = 0; u < U; u++) {
        const Integers<A> winner = load_integers<A>(offsets + where + u * step);
        sum[u] += only_where(winner == integers<A>(tap), load_as<A>(dy + where + u * step));
      }
    });
#pragma GCC unroll 4
    for (int u = 0; u < U; u++) store_as<A>(dx + to + u * to_step, sum[u]);
  }
};

// Columns f(0), ..., f(kWide - 1) -> elements p[0], p[1], ...
template <class A, int kWide, class T, class F> CONVLAB_INLINE void store_columns(T* p, F f) {
  static_assert(kWide == 2 || kWide == 4);
  constexpr int L = kLanes<A>;
  const auto pairs = [&](T* to, Vec<A> first, Vec<A> second) __attribute__((always_inline)) {
    store_as<A>(to, zip<A, 0>(first, second)), store_as<A>(to + L, zip<A, 1>(first, second));
  };
  if constexpr (kWide == 2) pairs(p, f(0), f(1));
  else {
    const Vec<A> a = f(0), b = f(1), c = f(2), d = f(3);
    pairs(p, zip<A, 0>(a, c), zip<A, 0>(b, d)), pairs(p + 2 * L, zip<A, 1>(a, c), zip<A, 1>(b, d));
  }
}

// Windows side by side, of kWide columns: dy and offsets are read once for all rows of a window.
template <class A, int kWide, class T>
[[gnu::noinline]] void spread(const Pooling& g, const Piece& p, const T* dy, const uint8_t* offsets, T* dx) {
  constexpr int L = kLanes<A>;
  const int rows = g.columns.period;
  for (int r = 0; r < g.columns.sources;
       r++, dy += g.source_pixel, offsets += g.source_pixel, dx += rows * g.target_pixel)
    for (int64_t q = 0; q < p.channels; q += L) {
      q = smaller(q, p.channels - L);
      Vec<A> v = load_as<A>(dy + q);
      keep(v);
      const Integers<A> winner = load_integers<A>(offsets + q);
      for (int row = 0; row < rows; row++)
        store_columns<A, kWide>(dx + row * g.target_pixel + kWide * q, [&](int s) __attribute__((always_inline)) {
          return winner == integers<A>(row * kWide + s) ? v : Vec<A>{};
        });
    }
  for (int r = g.columns.sources * rows; r < g.columns.targets; r++, dx += g.target_pixel)
    for (int64_t w = 0; w < kWide * p.channels; w++) dx[w] = T(0.0f);
}

// Columns of dx behind the windows, where a channel is g.wide columns
template <class T> void clear_columns_behind(const Pooling& g, const Piece& p, T* dx) {
  if (p.channel + p.channels < g.channels) return;
  const int64_t rows = int64_t(g.columns.targets);
  for (int64_t h = p.image * rows; h < (p.image + 1) * rows; h++)
    for (int64_t w = g.wide * g.channels; w < g.target_pixel; w++) dx[h * g.target_pixel + w] = T(0.0f);
}

template <class T>
void max_gather(const Pooling& g, const T* dy, const uint8_t* offsets, T* dx, int64_t begin, int64_t end, char*) {
  using A = acc_t<T>;
  using Op = Won<A, T>;
  for (int64_t i = begin; i < end; i++) {
    const Piece p = piece_of(g, i);
    const int64_t from = source_of<Op>(g, p);
    T* const to = dx + target_of(g, p) + (g.wide - 1) * p.channel;  // a channel is g.wide columns of dx
    if (g.wide == 1) walk_in_place<A>(g, p, Op{dy + from, offsets + from, to});
    else if (g.wide == 2) spread<A, 2>(g, p, dy + from, offsets + from, to);
    else spread<A, 4>(g, p, dy + from, offsets + from, to);
    if (g.wide > 1) clear_columns_behind(g, p, dx);
  }
}

// ---- the gradient, window by window ----

// Offsets are the caller's data: what is none of the window's counts as the first.
CONVLAB_INLINE int32_t place_of(const int32_t* places, int64_t, uint8_t offset) { return places[offset]; }
CONVLAB_INLINE int32_t place_of(const int32_t* places, int64_t taps, int32_t offset) {
  return places[uint32_t(offset) < taps ? offset : 0];
}

// By offset, how far from a window's first tap a tap is, of positions `row` and `pixel` elements apart
CONVLAB_INLINE void lay_places(const Scattering& g, int64_t row, int64_t pixel, int32_t* places) {
  int taps = 0;
  for (int r = 0; r < g.rows.kernel; r++)
    for (int s = 0; s < g.columns.kernel; s++)
      places[taps++] = int32_t(r * g.rows.dilation * row + s * g.columns.dilation * pixel);
  for (; taps < 256; taps++) places[taps] = 0;  // whatever a byte names is there
}

// dy, offsets: rows of outputs, each of n channels, `pixel` apart. The first output's sums of tap 0 begin at `first`, of
// `all` that there are, those of the next column and row `step` and `row_step` further.
template <int kChannels, class T, class M, class S>
[[gnu::noinline]] void scatter_rows(const Scattering& g, const int32_t* places, const T* dy, const M* offsets,
                                    int64_t some_pixel, int rows, int some, S* sums, int64_t all, int64_t first,
                                    int64_t step, int64_t row_step) {
  using A = acc_t<T>;
  const int n = kChannels ? kChannels : some, Q = g.columns.outputs;
  const int64_t pixel = kChannels ? kChannels : some_pixel;
  const int64_t taps = int64_t(g.rows.kernel) * g.columns.kernel;
  for (int p = 0; p < rows; p++, first += row_step)
    for (int64_t q = 0, window = first; q < Q; q++, window += step, dy += pixel, offsets += pixel)
      for (int c = 0; c < n; c++)
        if (const int64_t at = window + place_of(places, taps, offsets[c]) + c; uint64_t(at) < uint64_t(all))
          sums[at] = S(A(sums[at]) + A(dy[c]));
}

constexpr int64_t kCleared = 256 << 10;  // bytes at a time: few calls, and they are in an L2 when they are added to

template <class T, class M>
void scatter_in_place(const Scattering& g, const T* dy, const M* offsets, T* dx, int64_t begin, int64_t end,
                      int32_t* places) {
  const int64_t C = g.channels, blocks = C / g.channels_each, positions = int64_t(g.rows.size) * g.columns.size,
                outputs = int64_t(g.rows.outputs) * g.columns.outputs, row = g.columns.size * C;
  const int64_t together = larger(1, kCleared / (positions * C * int64_t(sizeof(T))));  // images
  int64_t block = begin % blocks, image = begin / blocks, cleared = image;
  lay_places(g, row, C, places);
  if (C == 1 && outputs == 1) {  // a plane is as a row of outputs to it
    for (int64_t planes; image < end; image += planes) {
      planes = smaller(together, end - image);
      T* const to = dx + image * positions;
      __builtin_memset(to, 0, sizeof(T) * size_t(planes * positions));
      scatter_rows<1, T, M, T>(g, places, dy + image, offsets + image, 1, int(planes), 1, to, planes * positions,
                               -g.rows.pad * row - g.columns.pad, 0, positions);
    }
    return;
  }
  for (int64_t i = begin; i < end; i++) {
    const int64_t channel = block * g.channels_each, n = block == blocks - 1 ? C - channel : g.channels_each;
    const int64_t from = image * outputs * C + channel;
    T* const to = dx + image * positions * C + channel;
    if (n < C) {
      for (int64_t k = 0; k < positions; k++) __builtin_memset(to + k * C, 0, sizeof(T) * size_t(n));
    } else if (image == cleared) {
      cleared = smaller(cleared + together, end);
      __builtin_memset(to, 0, sizeof(T) * size_t((cleared - image) * positions * C));
    }
    (C == 1 ? scatter_rows<1, T, M, T> : scatter_rows<0, T, M, T>)(g, places, dy + from, offsets + from, C,
                                                                   g.rows.outputs, int(n), to, positions * C - channel,
                                                                   -g.rows.pad * row - g.columns.pad * C,
                                                                   g.columns.stride * C, g.rows.stride * row);
    if (++block == blocks) block = 0, image++;
  }
}

// n sums -> to; may write a vector too far, up to to_end
template <class A, class T> CONVLAB_INLINE void copy_out(const A* from, int64_t n, T* to, const T* to_end) {
  constexpr int L = kLanes<A>;
  for (int64_t i = 0; i < n; i += L) store_some<A>(to + i, load<A>(from + i), int(smaller(to_end - to - i, L)));
}

template <class T, class M>
void scatter(const Scattering& g, const T* dy, const M* offsets, T* dx, int64_t begin, int64_t end, char* scratch) {
  using A = acc_t<T>;
  Carver carver{scratch};
  const auto [places, sums] = scatter_memory<A>(carver, g);
  if (g.in_place) return scatter_in_place(g, dy, offsets, dx, begin, end, places);
  const Axis& rows = g.rows;
  const int H = rows.size, W = g.columns.size, P = rows.outputs, Q = g.columns.outputs;
  const int reach = (rows.kernel - 1) * rows.dilation;
  const int64_t C = g.channels, blocks = (C + g.channels_each - 1) / g.channels_each,
                strips = (H + g.rows_each - 1) / g.rows_each;
  int64_t strip = begin % strips, block = begin / strips % blocks, image = begin / strips / blocks, laid = 0;
  for (int64_t i = begin; i < end; i++) {
    const int h0 = int(strip * g.rows_each), h1 = int(smaller(h0 + g.rows_each, H));
    const int64_t channel = block * g.channels_each, n = smaller(g.channels_each, C - channel), row = g.width * n;
    if (laid != n) lay_places(g, row, n, places), laid = n;
    // the outputs whose windows reach rows [h0, h1), and the rows that these windows reach
    const int p0 = int(larger(0, (h0 + rows.pad - reach + rows.stride - 1) / rows.stride)),
              p1 = int(smaller(P, (h1 - 1 + rows.pad) / rows.stride + 1));
    const int top = int(smaller(h0, p0 * rows.stride - rows.pad)),
              bottom = int(larger(h1, (p1 - 1) * rows.stride - rows.pad + reach + 1));
    const int64_t all = (bottom - top) * row, from = (image * P + p0) * Q * C + channel;
    __builtin_memset(sums, 0, sizeof(A) * size_t(all));
    (C == 1 ? scatter_rows<1, T, M, A> : scatter_rows<0, T, M, A>)(g, places, dy + from, offsets + from, C, p1 - p0,
                                                                   int(n), sums, all,
                                                                   (p0 * rows.stride - rows.pad - top) * row,
                                                                   g.columns.stride * n, rows.stride * row);
    const A* inside = sums + (h0 - top) * row + g.columns.pad * n;
    T* to = dx + (image * H + h0) * W * C + channel;
    const T* const to_end = to + (h1 - h0) * W * C;
    if (n == C && g.width == W) copy_out(inside, (h1 - h0) * row, to, to_end);
    else
      for (int h = h0; h < h1; h++, inside += row, to += W * C) {
        if (n == C) copy_out(inside, W * C, to, to_end);
        else
          for (int w = 0; w < W; w++) copy_out(inside + w * n, n, to + w * C, to + w * C + n);
      }
    if (++strip == strips) strip = 0, block++;
    if (block == blocks) block = 0, image++;
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
