// Max pooling. NaN beats everything, and the last NaN beats the others; of equals the first wins.
//
// What it does    Forward takes the largest of a window's taps, a vector of outputs at a time: vectors along a row,
//                 where x is laid out so that each tap of a vector of outputs is a vector, or along the channels of
//                 channels_last tensors, as they lie. Backward gathers: a vector of dx sums over the windows that cover
//                 it what they let win, and is written once.
// What bounds it  2 x 2: the second and third cache. 3 x 3 and more: the comparisons, five instructions a tap and
//                 vector.
#pragma once
#include "cpu/isa/gradients.h"
#include "cpu/isa/outputs.h"
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

// ---- along rows
// -------------------------------------------------------------------------------------------------------

// x [planes, H, W, inner] -> y, offsets (or null) [planes, P, Q, inner]
template <class T, class M>
void max_forward_in_rows(const Pooling& g, const T* x, T* y, M* offsets, int64_t begin, int64_t end, char* scratch) {
  using A = acc_t<T>;
  Integer<A>* first = nullptr;  // tap inside x, by column
  if (g.columns.pad > 0) {
    const int64_t n = g.columns.outputs * g.inner;
    first = take<Integer<A>>(scratch, n + kLanes<A>);
    for (int64_t i = 0; i < n; i++) first[i] = inside(g.columns, int(i / g.inner)).begin;
  }
  each_output_rows(g, x, -A(__builtin_inff()), !first, begin, end, scratch,
                   [&](const auto& source, const OutputRows& rows) {
                     largest_rows<A>(source, rows, rows.first_tap * g.columns.kernel,
                                     first ? first + rows.column * g.inner : nullptr, y, offsets);
                   });
}

// dy, offsets [planes, P, Q, inner] -> dx [planes, H, W, inner]
template <class T, class M>
void max_backward_in_rows(const Pooling& g, const T* dy, const M* offsets, T* dx, int64_t begin, int64_t end,
                          char* scratch) {
  using A = acc_t<T>;
  A* const dy_lines = take<A>(scratch, g.phase);
  M* const offset_lines = take<M>(scratch, g.phase);
  const int64_t P = g.rows.outputs, row = g.columns.outputs * g.inner;
  Won<A, M> won;
  const auto lay = [&](const Piece& p) {
    if constexpr (sizeof(T) == sizeof(A)) {
      // without overlaps along a row, and with outputs for all of it, lines are as memory has them; but vectors must
      // not leave it
      const bool as_it_lies =
          g.columns.reach == 0 && g.column_part.end <= g.columns.outputs && p.columns == g.columns.outputs;
      if (as_it_lies && ((g.planes - p.plane - p.planes + 1) * P - smaller(P, p.row + p.rows)) * row >= 2 * kLanes<A>) {
        won = {dy, offsets};
        return Laid{p.plane * P * row, P * row, row};
      }
    }
    won = {dy_lines, offset_lines};
    lay_out_outputs(g, p, offsets, offset_lines, offset_lines + g.phase);
    return lay_out_outputs(g, p, dy, dy_lines, dy_lines + g.phase);
  };
  each_gradient_rows(g, dx, begin, end, scratch, lay, won);
}

// ---- along channels, a vector of them at least
// ------------------------------------------------------------------------

// x [N, H, W, C] -> y, offsets (or null) [N, P, Q, C]
template <class A, class M>
void max_forward_in_channels(const Pooling& g, const A* x, A* y, M* offsets, int64_t begin, int64_t end,
                             char* scratch) {
  const Axis &rows = g.rows, &columns = g.columns;
  const int64_t C = g.inner, x_row = columns.size * C;
  const OneTap<A, A> source{x};
  Tap* const taps = take<Tap>(scratch, int64_t(rows.kernel) * columns.kernel);
  Inside vertical{-1, -1}, horizontal{-1, -1};  // what `taps` are
  int64_t count = 0;
  for (int64_t index = begin; index < end; index++) {
    const Piece piece = piece_of(g, index);
    for (int64_t n = piece.plane; n < piece.plane + piece.planes; n++)
      for (int p = piece.row; p < piece.row + piece.rows; p++) {
        const Inside down = inside(rows, p);
        for (int q = 0, pixels; q < columns.outputs; q += pixels) {
          pixels = whole_windows(columns, q, columns.outputs);
          const Inside across = inside(columns, q);
          if (down.begin != vertical.begin || down.end != vertical.end || across.begin != horizontal.begin ||
              across.end != horizontal.end) {
            vertical = down, horizontal = across, count = 0;
            for (int r = down.begin; r < down.end; r++)
              for (int s = across.begin; s < across.end; s++)
                taps[count++] = {r * rows.dilation * x_row + s * columns.dilation * C, r * columns.kernel + s};
          }
          const int64_t at =
              (n * rows.size + p * rows.stride - rows.pad) * x_row + (q * columns.stride - columns.pad) * C;
          const int64_t to = ((n * rows.outputs + p) * columns.outputs + q) * C;
          const OutputRows run{p, pixels, 0, {taps, count}, at, columns.stride * C, q, C, to, C, to + pixels * C};
          largest_rows<A>(source, run, down.begin * columns.kernel + across.begin,
                          static_cast<const Integer<A>*>(nullptr), y, offsets);
        }
      }
  }
}

// A row of dx [W, C]: pixel w from the outputs of `rows` times by_column[w], those of an image from `at` on
template <class A, class M>
[[gnu::noinline]] void row_of_pixels(const Won<A, M>& won, const Taps& rows, const Taps* by_column, int W, int64_t at,
                                     int64_t C, A* to) {
  constexpr int L = kLanes<A>;
  Vec<A> two[2], one[1];
  for (int w = 0; w < W; w++, to += C) {
    const Taps columns = by_column[w];
    int64_t i = 0;
    for (; i + 2 * L <= C; i += 2 * L) {
      won(rows, columns, at + i, two);
      store<A>(to + i, two[0]), store<A>(to + i + L, two[1]);
    }
    for (; i < C; i += L) i = within<A>(i, C), won(rows, columns, at + i, one), store<A>(to + i, one[0]);
  }
}

// dy, offsets [N, P, Q, C] -> dx [N, H, W, C]
template <class A, class M>
void max_backward_in_channels(const Pooling& g, const A* dy, const M* offsets, A* dx, int64_t begin, int64_t end,
                              char* scratch) {
  const Axis &rows = g.rows, &columns = g.columns;
  const int64_t C = g.inner, dy_row = columns.outputs * C, row = columns.size * C;
  const Won<A, M> won{dy, offsets};
  Tap* const row_taps = take<Tap>(scratch, rows.kernel);
  Taps* const by_column = take<Taps>(scratch, columns.size);
  Tap* column_taps = take<Tap>(scratch, int64_t(columns.size) * columns.kernel);
  for (int w = 0; w < columns.size; w++)
    by_column[w] = covering(columns, w, C, 1, column_taps), column_taps += by_column[w].count;
  for (int64_t index = begin; index < end; index++) {
    const Piece piece = piece_of(g, index);
    for (int64_t n = piece.plane; n < piece.plane + piece.planes; n++)
      for (int h = piece.row; h < piece.row + piece.rows; h++)
        row_of_pixels(won, covering(rows, h, dy_row, columns.kernel, row_taps), by_column, columns.size,
                      n * rows.outputs * dy_row, C, dx + (n * rows.size + h) * row);
  }
}

// ---- as the table has them
// --------------------------------------------------------------------------------------------

template <class T, class M>
void max_forward(const Pooling& g, const T* x, T* y, M* offsets, int64_t begin, int64_t end, char* scratch) {
  if constexpr (sizeof(T) == sizeof(acc_t<T>))
    if (g.direct) return max_forward_in_channels(g, x, y, offsets, begin, end, scratch);
  max_forward_in_rows(g, x, y, offsets, begin, end, scratch);
}

template <class T, class M>
void max_backward(const Pooling& g, const T* dy, const M* offsets, T* dx, int64_t begin, int64_t end, char* scratch) {
  if constexpr (sizeof(T) == sizeof(acc_t<T>))
    if (g.direct) return max_backward_in_channels(g, dy, offsets, dx, begin, end, scratch);
  max_backward_in_rows(g, dy, offsets, dx, begin, end, scratch);
}

}  // namespace convlab::CONVLAB_ISA
