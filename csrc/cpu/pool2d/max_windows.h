// Max pooling. NaN beats everything, and the last NaN beats the others; of equals the first wins.
//
// What it does    Forward takes the largest of a window's taps, a vector of outputs at a time: vectors along a row,
//                 where x is laid out so that each tap of a vector of outputs is a vector, or along the channels of
//                 channels_last tensors, as they lie. Backward gathers: a vector of dx sums over the windows that cover
//                 it what they let win, and is written once.
// What bounds it  2 x 2: the L2 and L3. 3 x 3 and more: the comparisons, five instructions a tap and
//                 vector.
#pragma once
#include "cpu/pool2d/gradients.h"
#include "cpu/pool2d/outputs.h"
#include "cpu/simd/integer_lanes.h"

namespace convlab::CONVLAB_ISA {

// U vectors of windows, which read from at[u] on: the largest, and which tap it is; `winner` as it was where nothing
// beats -inf. Comparisons wait for one another: several vectors at a time keep the machine busy.
template <class A, int U, class Source>
CONVLAB_INLINE void largest(const Source& source, const int64_t (&at)[U], const Taps& taps, Vec<A> (&best)[U],
                            Integers<A> (&winner)[U]) {
#pragma GCC unroll 4
  for (int u = 0; u < U; u++) best[u] = broadcast<A>(-A(__builtin_inff()));
  for (const Tap* tap = taps.taps; tap < taps.taps + taps.count; tap++)
#pragma GCC unroll 4
    for (int u = 0; u < U; u++)
      source.read(at[u] + tap->offset, [&](Vec<A> value, int id) {
        const auto wins = (value > best[u]) | (value != value);
        best[u] = wins ? value : best[u];
        winner[u] = wins ? integers<A>(int(tap->id) + id) : winner[u];
      });
}

// U vectors of a row's windows from element i on; where one would pass the row's end, the row's last vector
template <class A, int U, class Source, class T, class M>
CONVLAB_INLINE void largest_of_row(const Source& source, int64_t at, const Taps& taps, int none,
                                   const Integer<A>* first, int64_t i, int64_t n, T* y, M* winners) {
  Vec<A> best[U];
  Integers<A> winner[U];
  int64_t from[U], to[U];
#pragma GCC unroll 4
  for (int u = 0; u < U; u++) {
    to[u] = within<A>(i + u * kLanes<A>, n);
    from[u] = at + source.per_output * to[u];
    winner[u] = integers<A>(none) + (first ? load<Integer<A>>(first + to[u]) : Integers<A>{});
  }
  largest<A>(source, from, taps, best, winner);
#pragma GCC unroll 4
  for (int u = 0; u < U; u++) {
    store_as<A>(y + to[u], best[u]);
    if (winners) store_integers<A>(winners + to[u], winner[u]);
  }
}

// y, winners (or null). Of windows of nothing but -inf tap none + first[i] wins, with 0 for null.
template <class A, class Source, class T, class M>
[[gnu::noinline]] void largest_rows(const Source& source, const OutputRows& rows, int none, const Integer<A>* first,
                                    T* y, M* winners) {
  constexpr int L = kLanes<A>;
  const int64_t n = rows.n;
  int64_t at = rows.at, to = rows.to;
  for (int p = 0; p < rows.rows; p++, at += rows.step, to += rows.to_step) {
    T* const y_row = y + to;
    M* const winners_row = winners ? winners + to : nullptr;
    if (n < L && rows.to_end - to < L) [[unlikely]] {
      T few[L];
      M few_winners[L];
      largest_of_row<A, 1>(source, at, rows.taps, none, first, 0, n, few, few_winners);
      for (int l = 0; l < n; l++) {
        y_row[l] = few[l];
        if (winners) winners_row[l] = few_winners[l];
      }
      continue;
    }
    int64_t i = 0;
    for (; i + 2 * L < n; i += 4 * L)
      largest_of_row<A, 4>(source, at, rows.taps, none, first, i, n, y_row, winners_row);
    for (; i + L < n; i += 2 * L) largest_of_row<A, 2>(source, at, rows.taps, none, first, i, n, y_row, winners_row);
    if (i < n) largest_of_row<A, 1>(source, at, rows.taps, none, first, i, n, y_row, winners_row);
  }
}

// dy and winners -> vectors of dx: what taps won
template <class A, class M> struct Won {
  const A* dy;
  const M* winners;

  template <int U> CONVLAB_INLINE void operator()(const Taps& taps, int64_t at, Vec<A> (&sum)[U]) const {
    clear(sum);
    for (const Tap* tap = taps.taps; tap < taps.taps + taps.count; tap++) add(sum, at + tap->offset, int(tap->id));
  }
  // Of the taps of `rows` times those of `columns`
  template <int U>
  CONVLAB_INLINE void operator()(const Taps& rows, const Taps& columns, int64_t at, Vec<A> (&sum)[U]) const {
    clear(sum);
    for (const Tap* row = rows.taps; row < rows.taps + rows.count; row++)
      for (const Tap* tap = columns.taps; tap < columns.taps + columns.count; tap++)
        add(sum, at + row->offset + tap->offset, int(row->id + tap->id));
  }

  // What `count` taps in a row won of the same outputs: f(tap, vector)
  template <class F> CONVLAB_INLINE void of_row(int64_t at, int id, int count, F f) const {
    const Integers<A> winner = load_integers<A>(winners + at);
    const Vec<A> v = load<A>(dy + at);
    for (int s = 0; s < count; s++) f(s, winner == integers<A>(id + s) ? v : Vec<A>{});
  }
  CONVLAB_INLINE void of_pair(int64_t at, int id, Vec<A>& first, Vec<A>& second) const {
    first = won(at, id), second = won(at, id + 1);
  }

 private:
  CONVLAB_INLINE Vec<A> won(int64_t at, int id) const {
    return load_integers<A>(winners + at) == integers<A>(id) ? load_ahead(dy + at) : Vec<A>{};
  }

  template <int U> CONVLAB_INLINE static void clear(Vec<A> (&sum)[U]) {
#pragma GCC unroll 2
    for (int u = 0; u < U; u++) sum[u] = Vec<A>{};
  }
  template <int U> CONVLAB_INLINE void add(Vec<A> (&sum)[U], int64_t at, int id) const {
#pragma GCC unroll 2
    for (int u = 0; u < U; u++) add_won(sum[u], at + u * kLanes<A>, id);
  }

  CONVLAB_INLINE void add_won(Vec<A>& sum, int64_t at, int id) const {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    if constexpr (sizeof(A) == 4 &&
                  sizeof(M) == 1) {  // bytes are compared as they are: of a loop of five instructions, two less
      const Vec<A> v = load_ahead(dy + at);
      const __mmask16 wins =
          _mm_cmpeq_epi8_mask(_mm_loadu_si128(reinterpret_cast<const __m128i*>(winners + at)), _mm_set1_epi8(char(id)));
      sum = (Vec<A>)_mm512_mask_add_ps((__m512)sum, wins, (__m512)sum, (__m512)v);
      return;
    }
#endif
    sum += won(at, id);
  }

  CONVLAB_INLINE static Vec<A> load_ahead(const A* p) {
    Vec<A> v = load<A>(p);
#if defined(__AVX512F__)
    asm("" : "+v"(v));  // or the compiler makes it a load of the lanes that won, which waits for the winners
#endif
    return v;
  }
};

}  // namespace convlab::CONVLAB_ISA
