// Average pooling.
#include "cpu/pool2d/walk.h"

namespace convlab::CONVLAB_ISA {

template <class A> CONVLAB_INLINE A divisor_of(const Averages& a, int p, int q) { return A(a.rows[p]) * A(a.columns[q]); }

// Sums, divided where they are complete and `averages` says by what
template <class A, class From, class To> struct Sum {
  const From* from;
  To* to;
  const Averages* averages = nullptr;
  A divisor = 1;

  void begin(int p, int q) {
    if (averages) divisor = divisor_of<A>(*averages, p, q);
  }

  template <int U>
  CONVLAB_INLINE void run(const Taps& taps, int64_t at, int64_t step, int64_t target, int64_t target_step) const {
    Vec<A> sum[U];
#pragma GCC unroll 4
    for (int u = 0; u < U; u++) sum[u] = taps.begun ? load_as<A>(to + target + u * target_step) : Vec<A>{};
    each_tap(taps, at, [&](int64_t where, int) __attribute__((always_inline)) {
#pragma GCC unroll 4
      for (int u = 0; u < U; u++) sum[u] += load_as<A>(from + where + u * step);
    });
#pragma GCC unroll 4
    for (int u = 0; u < U; u++)
      store_as<A>(to + target + u * target_step, averages && taps.ends ? sum[u] / divisor : sum[u]);
  }
};

// x -> y
template <class T>
void average_forward(const Pooling& g, const Averages& averages, const T* x, T* y, int64_t begin, int64_t end,
                     char* scratch) {
  using A = acc_t<T>;
  constexpr int L = kLanes<A>;
  const int H = g.rows.sources, W = g.columns.sources, P = g.rows.targets, Q = g.columns.targets;
  const int64_t C = g.channels;
  Carver carver{scratch};
  const auto bench = pool_memory<A>(carver, g, L);
  for (int64_t i = begin; i < end; i++) {
    const Piece p = piece_of(g, i, L);
    if (g.in_place) {
      Sum<A, T, T> op{x + in_place(g, p, H, W, 0), y + in_place(g, p, P, Q, p.t0), &averages};
      walk<A>(g, op, {W * C, C}, {Q * C, C}, p.channels, p.t0, p.t1, 0, H);
      continue;
    }
    each_panel(g, p, [&](int s0, int s1) {
      take_in(Planes<A>(g, p.plane, int64_t(H) * W, int64_t(s0) * W), x, int64_t(s1 - s0) * W, bench.source);
      Sum<A, A, A> op{bench.source, bench.target, &averages};
      walk<A>(g, op, {int64_t(W) * L, L}, {int64_t(Q) * L, L}, L, p.t0, p.t1, s0, s1);
    });
    give_back(Planes<A>(g, p.plane, int64_t(P) * Q, int64_t(p.t0) * Q), bench.target, int64_t(p.t1 - p.t0) * Q, y);
  }
}

// dy, divided, -> dx
template <class T>
void average_backward(const Pooling& g, const Averages& averages, const T* dy, T* dx, int64_t begin, int64_t end,
                      char* scratch) {
  using A = acc_t<T>;
  constexpr int L = kLanes<A>;
  const int H = g.rows.targets, W = g.columns.targets, P = g.rows.sources, Q = g.columns.sources;
  const int64_t C = g.channels;
  Carver carver{scratch};
  const auto bench = pool_memory<A>(carver, g, L);
  for (int64_t i = begin; i < end; i++) {
    const Piece p = piece_of(g, i, L);
    const int64_t n = g.in_place ? p.channels : L;
    A* shares = bench.source;
    if (!g.in_place)
      take_in(Planes<A>(g, p.plane, int64_t(P) * Q, int64_t(p.s0) * Q), dy, int64_t(p.s1 - p.s0) * Q, shares);
    for (int r = p.s0; r < p.s1; r++)
      for (int q = 0; q < Q; q++, shares += n) {
        const A divisor = divisor_of<A>(averages, r, q);
        const T* const from = dy + in_place(g, p, P, Q, r) + q * C;
        if (!g.in_place) store<A>(shares, load<A>(shares) / divisor);
        else
          for (int64_t c = 0; c < n; c += L) c = smaller(c, n - L), store<A>(shares + c, load_as<A>(from + c) / divisor);
      }
    if (g.in_place) {
      Sum<A, A, T> op{bench.source, dx + in_place(g, p, H, W, p.t0)};
      walk<A>(g, op, {Q * n, n}, {W * C, C}, n, p.t0, p.t1, p.s0, p.s1);
    } else {
      Sum<A, A, A> op{bench.source, bench.target};
      walk<A>(g, op, {int64_t(Q) * L, L}, {int64_t(W) * L, L}, L, p.t0, p.t1, p.s0, p.s1);
      give_back(Planes<A>(g, p.plane, int64_t(H) * W, int64_t(p.t0) * W), bench.target, int64_t(p.t1 - p.t0) * W, dx);
    }
  }
}

}  // namespace convlab::CONVLAB_ISA

CONVLAB_DEFINE(average_forward, average_forward)
CONVLAB_DEFINE(average_backward, average_backward)
