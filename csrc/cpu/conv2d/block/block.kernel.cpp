// A block's ending over a convolution's whole output, and its gradient: each window's dy at its winner, as the activation
// lets it pass, and zeros elsewhere.
#include "cpu/conv2d/block/block.h"
#include "cpu/conv2d/block/ending.h"

namespace convlab::CONVLAB_ISA {

constexpr int kRun = 1 << 20;

// f(at, count), for the elements [begin, end): of an activation alone they are one row
template <class F> CONVLAB_INLINE void each_run(int64_t begin, int64_t end, const F& f) {
  for (int64_t at = begin; at < end; at += kRun) f(at, end - at < kRun ? int(end - at) : kRun);
}

template <class T>
void block_finish(const BlockEnd& b, const T* x, T* y, uint8_t* winners, int64_t begin, int64_t end) {
  using A = acc_t<T>;
  const Pool2d& g = b.g;
  const int64_t C = b.channels, row = g.W * C, to = g.Q * C;
  with_ending(b.ending, [&]<Activation activation, int kR, int kS>() {
    if constexpr (kR == 1 && kS == 1)
      return each_run(begin * to, end * to, [&](int64_t at, int count) {
        finish_row<A, activation, 1, 1>(b.ending, x + at, 0, count, y + at, winners ? winners + at : nullptr);
      });
    for (int64_t i = begin; i < end; i++) {
      const T* const from = x + (i / g.P * g.H + i % g.P * g.R) * row;
      uint8_t* const mine = winners ? winners + i * to : nullptr;
      if (C == 1) finish_row<A, activation, kR, kS>(b.ending, from, row, g.Q, y + i * to, mine);
      else finish_pixels<A, activation, kR, kS>(b.ending, from, {row, C}, g.Q, C, y + i * to, mine, C);
    }
  });
}

// A row of Q windows -> R rows of dx of which Q kS elements are written. Windows one or two columns wide
template <class A, Activation activation, int kR, int kS, class T>
[[gnu::noinline]] void spread_row(const Ending& e, const T* dy, const uint8_t* winners, int Q, T* dx, int64_t row) {
  constexpr int L = kLanes<A>;
  const int R = kR ? kR : e.R;
  const A slope = A(e.slope);
  for (int q = 0; q < Q; q += L) {
    if (q + L > Q && Q >= L) q = Q - L;  // the last vector again covers part of the one before
    const int count = Q - q < L ? Q - q : L, reach = count * kS;
    const Integers<A> winner = load_some_integers<A>(winners + q, count), tap = winner & integers<A>(kPasses - 1);
    Vec<A> v = passed<activation, A>(load_some<A>(dy + q, count), winner >= integers<A>(kPasses), slope);
    keep(v);  // not read under a mask
    for (int r = 0; r < R; r++) {
      T* const to = dx + r * row + q * kS;
      const Vec<A> first = tap == integers<A>(r * kS) ? v : Vec<A>{};
      if constexpr (kS == 1) store_some<A>(to, first, count);
      else {
        const Vec<A> second = tap == integers<A>(r * kS + 1) ? v : Vec<A>{};
        store_some<A>(to, zip<A, 0>(first, second), reach);
        if (reach > L) store_some<A>(to + L, zip<A, 1>(first, second), reach - L);
      }
    }
  }
}

// The same of any windows over pixels of C channels; one channel is a plane
template <class A, Activation activation, class T>
[[gnu::noinline]] void spread_pixels(const Ending& e, const T* dy, const uint8_t* winners, int Q, int64_t C, T* dx,
                                     int64_t row) {
  constexpr int L = kLanes<A>;
  const A slope = A(e.slope);
  for (int q = 0; q < Q; q++, dy += C, winners += C, dx += e.S * C) {
    for (int64_t c = 0; c < C; c += L) {
      if (c + L > C && C >= L) c = C - L;
      const int count = C - c < L ? int(C - c) : L;
      const Integers<A> winner = load_some_integers<A>(winners + c, count), tap = winner & integers<A>(kPasses - 1);
      Vec<A> v = passed<activation, A>(load_some<A>(dy + c, count), winner >= integers<A>(kPasses), slope);
      keep(v);
      for (int r = 0; r < e.R; r++)
        for (int s = 0; s < e.S; s++)
          store_some<A>(dx + r * row + s * C + c, tap == integers<A>(r * e.S + s) ? v : Vec<A>{}, count);
    }
  }
}

template <class T>
void block_spread(const BlockEnd& b, const T* dy, const uint8_t* winners, T* dx, int64_t begin, int64_t end) {
  using A = acc_t<T>;
  const Pool2d& g = b.g;
  const int64_t C = b.channels, row = g.W * C, from = g.Q * C, written = from * g.S;
  with_ending(b.ending, [&]<Activation activation, int kR, int kS>() {
    if constexpr (kR == 1 && kS == 1)
      return each_run(begin * from, end * from, [&](int64_t at, int count) {
        spread_row<A, activation, 1, 1>(b.ending, dy + at, winners + at, count, dx + at, 0);
      });
    for (int64_t i = begin; i < end; i++) {
      const int p = int(i % g.P);
      T* const to = dx + (i / g.P * g.H + int64_t(p) * g.R) * row;
      if constexpr (kS > 0) {
        if (C == 1) spread_row<A, activation, kR, kS>(b.ending, dy + i * from, winners + i * from, g.Q, to, row);
      }
      if (C > 1 || kS == 0) spread_pixels<A, activation>(b.ending, dy + i * from, winners + i * from, g.Q, C, to, row);
      const int rows = p + 1 < g.P ? g.R : g.H - p * g.R;  // the last has what no window covers
      for (int r = 0; r < rows; r++)
        for (int64_t w = r < g.R ? written : 0; w < row; w++) to[r * row + w] = T(0.0f);
    }
  });
}

}  // namespace convlab::CONVLAB_ISA

CONVLAB_DEFINE(block_finish, block_finish)
CONVLAB_DEFINE(block_spread, block_spread)
