// A block's ending over a convolution's whole output, and its gradient: each window's dy at its winner, as the activation
// lets it pass, and zeros elsewhere.
#include "cpu/conv2d/block/block.h"
#include "cpu/conv2d/block/ending.h"

namespace convlab::CONVLAB_ISA {

template <class T>
void block_finish(const BlockEnd& b, const T* x, T* y, uint8_t* winners, int64_t begin, int64_t end) {
  using A = acc_t<T>;
  const Pool2d& g = b.g;
  const int64_t C = b.channels, row = g.W * C, to = g.Q * C;
  with_ending(b.ending, [&]<Activation activation, int kR, int kS>() {
    for (int64_t i = begin; i < end; i++) {
      const T* const from = x + (i / g.P * g.H + i % g.P * g.R) * row;
      uint8_t* const mine = winners ? winners + i * to : nullptr;
      if (C == 1) finish_row<A, activation, kR, kS>(b.ending, from, row, g.Q, y + i * to, mine);
      else finish_pixels<A, activation, kR, kS>(b.ending, from, {row, C}, g.Q, C, y + i * to, mine, C);
    }
  });
}

// What becomes of dy before pooling, where tap `tap` won
template <class A, Activation activation> CONVLAB_INLINE Vec<A> passed(Vec<A> dy, Integers<A> winner, A slope) {
  const auto passes = winner >= integers<A>(kPasses);
  if constexpr (activation == Activation::relu) return only_where(passes, dy);
  else if constexpr (activation == Activation::leaky_relu) return passes ? dy : dy * slope;
  else return dy;
}

// A row of Q windows -> R rows of dx of which Q kS elements are written. Windows one or two columns wide
template <class A, Activation activation, int kR, int kS, class T>
[[gnu::noinline]] void spread_row(const Ending& e, const T* dy, const uint8_t* winners, int Q, T* dx, int64_t row) {
  constexpr int L = kLanes<A>;
  const int R = kR ? kR : e.R;
  const A slope = A(e.slope);
  int q = 0;
  for (; q + L <= Q; q += L) {
    const Integers<A> winner = load_integers<A>(winners + q), tap = winner & integers<A>(kPasses - 1);
    Vec<A> v = passed<A, activation>(load_as<A>(dy + q), winner, slope);
    keep(v);  // not read under a mask
    for (int r = 0; r < R; r++) {
      T* const to = dx + r * row + q * kS;
      const Vec<A> first = tap == integers<A>(r * kS) ? v : Vec<A>{};
      if constexpr (kS == 1) store_as<A>(to, first);
      else {
        const Vec<A> second = tap == integers<A>(r * kS + 1) ? v : Vec<A>{};
        store_as<A>(to, zip<A, 0>(first, second)), store_as<A>(to + L, zip<A, 1>(first, second));
      }
    }
  }
  for (int r = 0; r < R; r++)
    for (int s = q * kS; s < Q * kS; s++) dx[r * row + s] = T(0.0f);
  for (; q < Q; q++) {
    const bool passes = winners[q] & kPasses;
    const int tap = winners[q] & (kPasses - 1);
    if (tap >= R * kS) continue;  // winners are the caller's data
    dx[tap / kS * row + q * kS + tap % kS] =
        T(activation == Activation::none || passes ? A(dy[q]) : held_back(activation, slope, A(dy[q])));
  }
}

// The same of any windows over pixels of C channels; one channel is a plane
template <class A, Activation activation, class T>
[[gnu::noinline]] void spread_pixels(const Ending& e, const T* dy, const uint8_t* winners, int Q, int64_t C, T* dx,
                                     int64_t row) {
  constexpr int L = kLanes<A>;
  const A slope = A(e.slope);
  for (int q = 0; q < Q; q++, dy += C, winners += C, dx += e.S * C) {
    int64_t c = 0;
    for (; c + L <= C; c += L) {
      const Integers<A> winner = load_integers<A>(winners + c), tap = winner & integers<A>(kPasses - 1);
      Vec<A> v = passed<A, activation>(load_as<A>(dy + c), winner, slope);
      keep(v);
      for (int r = 0; r < e.R; r++)
        for (int s = 0; s < e.S; s++)
          store_as<A>(dx + r * row + s * C + c, tap == integers<A>(r * e.S + s) ? v : Vec<A>{});
    }
    for (; c < C; c++) {
      const bool passes = winners[c] & kPasses;
      const A v = activation == Activation::none || passes ? A(dy[c]) : held_back(activation, slope, A(dy[c]));
      for (int r = 0; r < e.R; r++)
        for (int s = 0; s < e.S; s++)
          dx[r * row + s * C + c] = T(r * e.S + s == (winners[c] & (kPasses - 1)) ? v : A(0));
    }
  }
}

template <class T>
void block_spread(const BlockEnd& b, const T* dy, const uint8_t* winners, T* dx, int64_t begin, int64_t end) {
  using A = acc_t<T>;
  const Pool2d& g = b.g;
  const int64_t C = b.channels, row = g.W * C, from = g.Q * C, written = from * g.S;
  with_ending(b.ending, [&]<Activation activation, int kR, int kS>() {
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
