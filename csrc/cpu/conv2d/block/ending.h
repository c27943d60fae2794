// A block's ending in vectors: activation, maximum and winner of windows, for rows of a plane (vectors along columns) and
// for pixels with their channels side by side. Max pooling's rules: the first of equals wins, NaN beats everything, and
// the last NaN the others.
#pragma once
#include "cpu/conv2d/block/finish.h"
#include "cpu/simd/integer_lanes.h"
#include "cpu/simd/transpose.h"

namespace convlab::CONVLAB_ISA {

// v as memory of type T keeps it
template <class T, class A> CONVLAB_INLINE Vec<A> rounded(Vec<A> v) {
  if constexpr (sizeof(T) == sizeof(A)) return v;
  else {
    T kept[kLanes<A>];
    store_as<A>(kept, v);
    return load_as<A>(kept);
  }
}

// As the activations make it of x, which memory of type T could keep: NaN stays NaN
template <Activation activation, class T, class V, class A> CONVLAB_INLINE V activated_as(V x, A slope) {
  if constexpr (activation == Activation::relu) return x <= 0 ? V{} : x;
  else if constexpr (activation == Activation::relu6) return clamped(x, broadcast<A>(6));
  else if constexpr (activation == Activation::leaky_relu) return x > 0 ? x : rounded<T, A>(x * slope);
  else return x;
}

// What becomes of the gradient dy, where it passes or not
template <Activation activation, class A> CONVLAB_INLINE Vec<A> passed(Vec<A> dy, Integers<A> passes, A slope) {
  if constexpr (clips(activation)) return only_where(passes, dy);
  else if constexpr (activation == Activation::leaky_relu) return passes ? dy : dy * slope;
  else return dy;
}

// The largest so far, and its tap with the bit that says whether the gradient passes
template <class A> struct Best {
  Vec<A> value;
  Integers<A> winner;

  template <Activation activation, class T> CONVLAB_INLINE void take(Vec<A> x, A slope, int tap) {
    Integers<A> passes = integers<A>(kPasses);
    if constexpr (activation == Activation::relu) passes = x <= 0 ? Integers<A>{} : passes;
    else if constexpr (activation == Activation::relu6) passes = (x <= 0) | (x >= A(6)) ? Integers<A>{} : passes;
    else if constexpr (activation == Activation::leaky_relu) passes = x > 0 ? passes : Integers<A>{};
    x = activated_as<activation, T>(x, slope);
    const Integers<A> mine = passes + Integer<A>(tap);
    if (tap == 0) value = x, winner = mine;
    else {
      const auto stays = ~(x > value) & (x == x);
      value = stays ? value : x, winner = stays ? winner : mine;
    }
  }
};

// The best of a window's taps, where load(r, s) has their elements; kR, kS: what R and S are, or 0 for any
template <class A, Activation activation, class T, int kR, int kS, class Load>
CONVLAB_INLINE Best<A> best_of(const Ending& e, A slope, Load load) {
  const int R = kR ? kR : e.R, S = kS ? kS : e.S;
  Best<A> best;
#pragma GCC unroll 2
  for (int r = 0; r < R; r++)
#pragma GCC unroll 2
    for (int s = 0; s < S; s++) best.template take<activation, T>(load(r, s), slope, r * S + s);
  return best;
}

template <class A, class T, class W> CONVLAB_INLINE void store_best(const Best<A>& best, int count, T* y, W* winners) {
  store_some<A>(y, best.value, count);
  if (winners) store_some_integers<A>(winners, best.winner, count);
}

// A row of Q windows of a plane whose rows are `row` elements apart -> y, which may be x for windows of one, winners [Q]
template <class A, Activation activation, int kR, int kS, class T>
[[gnu::noinline]] void finish_row(const Ending& e, const T* x, int64_t row, int Q, T* y, uint8_t* winners) {
  constexpr int L = kLanes<A>;
  const A slope = A(e.slope);
  for (int q = 0; q < Q; q += L) {
    if (q + L > Q && Q >= L && x != y) q = Q - L;  // the last vector again covers part of the one before
    const int count = Q - q < L ? Q - q : L;
    const T* const from = x + int64_t(q) * (kS ? kS : e.S);
    store_best<A>(best_of<A, activation, T, kR, kS>(e, slope,
                                                    [&](int r, int s) __attribute__((always_inline)) {
                                                      const T* const at = from + r * row;
                                                      if (kS == 1) return load_some<A>(at, count);
                                                      if (kS == 2) {
                                                        return s ? load_every_second<A, 1>(at, 2 * count)
                                                                 : load_every_second<A, 0>(at, 2 * count);
                                                      }
                                                      Vec<A> v = {};
                                                      for (int l = 0; l < count; l++)
                                                        v[l] = A(at[l * (kS ? kS : e.S) + s]);
                                                      return v;
                                                    }),
                  count, y + q, winners ? winners + q : nullptr);
  }
}

// Where pixels lie: elements from a row to the next, and from a pixel to the next
struct PixelSteps {
  int64_t row, pixel;
};

// A row of Q windows over pixels of `channels` side by side -> y, winners, `to` elements apart
template <class A, Activation activation, int kR, int kS, class T, class W>
[[gnu::noinline]] void finish_pixels(const Ending& e, const T* x, PixelSteps from, int Q, int64_t channels, T* y,
                                     W* winners, int64_t to) {
  constexpr int L = kLanes<A>;
  const A slope = A(e.slope);
  for (int q = 0; q < Q; q++, y += to, winners += winners ? to : 0)
    for (int64_t c = 0; c < channels; c += L) {
      if (c + L > channels && channels >= L) c = channels - L;
      const int count = channels - c < L ? int(channels - c) : L;
      const T* const at = x + int64_t(q) * (kS ? kS : e.S) * from.pixel + c;
      store_best<A>(best_of<A, activation, T, kR, kS>(e, slope,
                                                      [&](int r, int s) __attribute__((always_inline)) {
                                                        return load_some<A>(at + r * from.row + s * from.pixel, count);
                                                      }),
                    count, y + c, winners ? winners + c : nullptr);
    }
}

// f<activation, R, S>(), where R and S are 2, or 1, or 0 for others
template <Activation activation, class F> CONVLAB_INLINE void with_window(const Ending& e, F f) {
  if (e.R == 1 && e.S == 1) f.template operator()<activation, 1, 1>();
  else if (e.R == 2 && e.S == 2) f.template operator()<activation, 2, 2>();
  else if (e.S == 2) f.template operator()<activation, 0, 2>();
  else f.template operator()<activation, 0, 0>();
}
// f<activation>()
template <class F> CONVLAB_INLINE void with_activation(Activation activation, F f) {
  if (activation == Activation::relu) f.template operator()<Activation::relu>();
  else if (activation == Activation::leaky_relu) f.template operator()<Activation::leaky_relu>();
  else if (activation == Activation::relu6) f.template operator()<Activation::relu6>();
  else f.template operator()<Activation::none>();
}

// f(sum) for each of the sums of a tile
template <class V, int M, class F> CONVLAB_INLINE void each_sum(V (&sums)[M], F f) {
#pragma GCC unroll 32
  for (int m = 0; m < M; m++) f(sums[m]);
}
template <class V, int M, int N, class F> CONVLAB_INLINE void each_sum(V (&sums)[M][N], F f) {
#pragma GCC unroll 32
  for (int m = 0; m < M; m++)
#pragma GCC unroll 8
    for (int n = 0; n < N; n++) f(sums[m][n]);
}

// A tile's sums, [M] or [M][N] of them in registers -> what an activation alone makes of them
template <class A, class Sums> CONVLAB_INLINE void activate(const Ending& e, Sums& sums) {
  if (e.activation == Activation::none) return;
  with_activation(e.activation, [&, slope = A(e.slope)]<Activation activation>() __attribute__((always_inline)) {
    each_sum(sums, [&](Vec<A>& sum) __attribute__((always_inline)) { sum = activated_as<activation, A>(sum, slope); });
  });
}

template <class F> CONVLAB_INLINE void with_ending(const Ending& e, F f) {
  with_activation(e.activation,
                  [&]<Activation activation>() __attribute__((always_inline)) { with_window<activation>(e, f); });
}

// panel [rows, L], rows `panel_stride` apart -> to [columns, rows], `to_stride` apart, for the first `columns` <= L
template <class A>
[[gnu::noinline]] void transpose_winners(const Integer<A>* panel, int64_t panel_stride, int rows, int columns,
                                         uint8_t* to, int64_t to_stride) {
  constexpr int L = kLanes<A>;
  if (rows < L) {
    for (int i = 0; i < rows; i++)
      for (int j = 0; j < columns; j++) to[j * to_stride + i] = uint8_t(panel[i * panel_stride + j]);
    return;
  }
  for (int i = 0; i < rows; i += L) {
    if (i + L > rows) i = rows - L;
    Vec<A> block[L];
#pragma GCC unroll 16
    for (int l = 0; l < L; l++) block[l] = (Vec<A>)load<Integer<A>>(panel + (i + l) * panel_stride);
    transpose<A>(block);
#pragma GCC unroll 16
    for (int l = 0; l < L; l++)
      if (l < columns) store_integers<A>(to + l * to_stride + i, (Integers<A>)block[l]);
  }
}

// panel [rows, columns, panel_stride], rows from row0 on of image n and `channels` channels from `channel` on, whose
// vectors are whole -> their windows, in y and winners
template <class A, class T>
void finish_panel(const Finish& f, const A* panel, int64_t panel_stride, int row0, int rows, int columns, int n,
                  int64_t channel, int channels, const Finished<A>& finished) {
  constexpr int L = kLanes<A>;
  const int p0 = row0 / f.ending.R, last = (row0 + rows) / f.ending.R, count = (last < f.P ? last : f.P) - p0;
  const int64_t at = n * f.to.n + channel * f.to.c + p0 * f.to.h, whole = round_up(channels, L);
  const PixelSteps from{columns * panel_stride, panel_stride};
  T* const y = static_cast<T*>(f.y) + at;
  uint8_t* const winners = f.winners ? f.winners + at : nullptr;
  with_ending(f.ending, [&]<Activation activation, int kR, int kS>() {
    for (int p = 0; p < count; p++) {
      const A* const x = panel + p * f.ending.R * from.row;
      const int64_t to = int64_t(p) * f.Q * panel_stride;
      if (f.to.c == 1)
        finish_pixels<A, activation, kR, kS>(f.ending, x, from, f.Q, channels, y + p * f.to.h,
                                             winners ? winners + p * f.to.h : nullptr, f.to.w);
      else
        finish_pixels<A, activation, kR, kS>(f.ending, x, from, f.Q, whole, finished.values + to,
                                             winners ? finished.winners + to : nullptr, panel_stride);
    }
  });
  for (int v = 0; v < channels && f.to.c != 1; v += L) {
    const int lanes = channels - v < L ? channels - v : L;
    transpose_out(finished.values + v, panel_stride, count * f.Q, lanes, y + v * f.to.c, f.to.c);
    if (winners)
      transpose_winners<A>(finished.winners + v, panel_stride, count * f.Q, lanes, winners + v * f.to.c, f.to.c);
  }
}

// Rows from row0 on of `channels` channels of image n, from `channel` on, whose strides are `from` -> their windows
template <class A, class T>
void finish_planes(const Finish& f, const T* x, const Strides& from, int row0, int rows, int n, int64_t channel,
                   int channels) {
  const int p0 = row0 / f.ending.R, last = (row0 + rows) / f.ending.R, p1 = last < f.P ? last : f.P;
  const bool pixels = f.to.c == 1;
  with_ending(f.ending, [&]<Activation activation, int kR, int kS>() {
    const bool run = kR == 1 && kS == 1 && !pixels && from.h == f.Q && f.to.h == f.Q;  // rows are one
    for (int k = 0; k < (pixels ? 1 : channels); k++)
      for (int p = p0; p < (run ? p0 + 1 : p1); p++) {
        const T* const at = x + k * from.c + (int64_t(p) * f.ending.R - row0) * from.h;
        const int64_t to = n * f.to.n + (channel + k) * f.to.c + p * f.to.h;
        T* const y = static_cast<T*>(f.y) + to;
        uint8_t* const winners = f.winners ? f.winners + to : nullptr;
        if (pixels)
          finish_pixels<A, activation, kR, kS>(f.ending, at, {from.h, from.w}, f.Q, channels, y, winners, f.to.w);
        else finish_row<A, activation, kR, kS>(f.ending, at, from.h, run ? (p1 - p0) * f.Q : f.Q, y, winners);
      }
  });
}

}  // namespace convlab::CONVLAB_ISA
