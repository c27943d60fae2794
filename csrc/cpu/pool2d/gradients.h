// The gradients of poolings: each element of dx is summed over the outputs whose windows cover it, in their order, and
// written once.
#pragma once
#include "cpu/pool2d/taps.h"

namespace convlab::CONVLAB_ISA {

// Where a piece's outputs lie: row p of plane n from offset + n plane + p line on. Columns begin `reach` before those
// of dx.
struct Laid {
  int64_t offset, plane, line;
};

// The outputs whose windows cover place h, ascending, `step` elements apart, with which of their taps
CONVLAB_INLINE Taps covering(const Axis& a, int h, int64_t step, int id, Tap* taps) {
  int count = 0;
  for (int r = a.kernel - 1; r >= 0; r--) {
    const int start = h + a.pad - r * a.dilation;
    if (start >= 0 && start % a.stride == 0 && start / a.stride < a.outputs)
      taps[count++] = {start / a.stride * step, r * id};
  }
  return {taps, count};
}

// The same for the places of a line, where all of these outputs are there: of_phase [stride], from `offset` + the line's
// own on, in memory `taps`
CONVLAB_INLINE void by_phase(const PoolAxis& a, int64_t offset, int64_t step, int id, Tap* taps, Taps* of_phase) {
  for (int phase = 0; phase < a.stride; phase++) {
    of_phase[phase] = {taps, 0};
    for (int r = a.kernel - 1; r >= 0; r--)
      if (r * a.dilation % a.stride == phase)
        *taps++ = {offset - r * a.dilation / a.stride * step, r * id}, of_phase[phase].count++;
  }
}

// rows [n] times columns [m] -> out [n, m], in memory `taps`
CONVLAB_INLINE void multiply(const Taps* rows, int n, const Taps* columns, int m, Tap* taps, Taps* out) {
  for (int i = 0; i < n; i++)
    for (int j = 0; j < m; j++) {
      const Tap* const first = taps;
      for (int64_t r = 0; r < rows[i].count; r++)
        for (int64_t s = 0; s < columns[j].count; s++)
          *taps++ = {rows[i].taps[r].offset + columns[j].taps[s].offset, rows[i].taps[r].id + columns[j].taps[s].id};
      *out++ = {first, taps - first};
    }
}

// ---- rows of dx
// -------------------------------------------------------------------------------------------------------
//
// Rows may be written too far, up to to_end: what lies behind them is written later. Vectors of dx come from a
// GradientSource: what the outputs that `taps` name give, from `at` on; and, of one output alone that begins at tap
// `id`, what it gives `count` neighbouring elements, or two of them.
template <class Source, class A>
concept GradientSource = requires(const Source& s, const Taps& taps, int64_t at, int id, int count, Vec<A> (&two)[2],
                                  Vec<A>& first, Vec<A>& second, void (*f)(int, Vec<A>)) {
  s(taps, at, two);
  s.of_row(at, id, count, f);
  s.of_pair(at, id, first, second);
};

// Stride 1, n elements
template <class A, class T, class Sum>
[[gnu::noinline]] void row_of_one_phase(const Sum& sum, const Taps& taps, int64_t at, int64_t n, T* to,
                                        const T* to_end) {
  constexpr int L = kLanes<A>;
  Vec<A> v[2], last[1];
  int64_t i = 0;
  for (; i + 2 * L <= n; i += 2 * L) {
    sum(taps, at + i, v);
    store_as<A>(to + i, v[0]), store_as<A>(to + i + L, v[1]);
  }
  for (; i < n; i += L) {
    i = within<A>(i, n);
    sum(taps, at + i, last);
    store_within<A>(to + i, last[0], n - i, to_end);
  }
}

// a and b [U vectors] in turns -> to, of which n elements count
template <class A, int U, class T>
CONVLAB_INLINE void store_zipped(const Vec<A> (&a)[U], const Vec<A> (&b)[U], int64_t n, T* to, const T* to_end) {
  constexpr int L = kLanes<A>;
  using all = indices_to<L>;
  if (n >= 2 * U * L || to_end - to >= 2 * U * L) [[likely]] {
#pragma GCC unroll 2
    for (int u = 0; u < U; u++)
      store_as<A>(to + 2 * u * L, zip<A, 0>(a[u], b[u], all{})),
          store_as<A>(to + (2 * u + 1) * L, zip<A, 1>(a[u], b[u], all{}));
  } else {
    for (int u = 0; u < U; u++) {
      store_within<A>(to + 2 * u * L, zip<A, 0>(a[u], b[u], all{}), n - 2 * u * L, to_end);
      store_within<A>(to + (2 * u + 1) * L, zip<A, 1>(a[u], b[u], all{}), n - (2 * u + 1) * L, to_end);
    }
  }
}

// Stride 2, inner = 1, n elements: the phases in turns
template <class A, class T, class Sum>
[[gnu::noinline]] void row_of_two_phases(const Sum& sum, const Taps& even, const Taps& odd, int64_t at_even,
                                         int64_t at_odd, int64_t n, T* to, const T* to_end) {
  constexpr int L = kLanes<A>;
  Vec<A> a[2], b[2], last_a[1], last_b[1];
  int64_t i = 0;
  for (; i + 2 * L < n; i += 4 * L) {
    sum(even, at_even + i / 2, a), sum(odd, at_odd + i / 2, b);
    store_zipped<A>(a, b, n - i, to + i, to_end);
  }
  if (i >= n) return;
  sum(even, at_even + i / 2, last_a), sum(odd, at_odd + i / 2, last_b);
  store_zipped<A>(last_a, last_b, n - i, to + i, to_end);
}

// All rows of `lines` lines where windows lie side by side, which is usual: so with little between one row and the
// next. Each element of dx has one output: taps [row_stride, column_stride], of one each. n places. For windows two
// wide, inner = 1
template <class A, class T, class Sum>
[[gnu::noinline]] void rows_of_pairs(const Sum& sum, const Taps* taps, int row_stride, int64_t lines, int64_t at,
                                     int64_t step, int n, T* to, const T* to_end) {
  constexpr int L = kLanes<A>;
  Vec<A> a[1], b[1];
  for (int64_t t = 0; t < lines; t++, at += step)
    for (int phase = 0; phase < row_stride; phase++, to += n) {
      const Tap first = *taps[2 * phase].taps;
      for (int64_t i = 0; i < n; i += 2 * L) {
        sum.of_pair(at + first.offset + i / 2, int(first.id), a[0], b[0]);
        store_zipped<A>(a, b, n - i, to + i, to_end);
      }
    }
}

// For other windows side by side
template <class A, class T, class Sum>
[[gnu::noinline]] void rows_of_blocks(const Sum& sum, const Taps* taps, int row_stride, int column_stride,
                                      int64_t lines, int64_t at, int64_t step, int n, int64_t inner, T* to,
                                      const T* to_end) {
  for (int64_t t = 0; t < lines; t++, at += step)
    for (int phase = 0; phase < row_stride; phase++, to += n * inner) {
      const Tap first = *taps[column_stride * phase].taps;
      for (int64_t k = 0, j = at + first.offset; k < n; k += column_stride, j += inner)
        for (int64_t i = 0; i < inner; i += kLanes<A>) {
          i = within<A>(i, inner);
          sum.of_row(j + i, int(first.id), smaller(column_stride, n - k),
                     [&](int s, Vec<A> v) { store_within<A>(to + (k + s) * inner + i, v, inner - i, to_end); });
        }
    }
}

// Any stride, n places of `inner` elements, the first `column` places behind the lines' begin. taps [stride], buffers
// [stride, line]
template <class A, class T, class Sum>
[[gnu::noinline]] void row_of_phases(const Sum& sum, const Taps* taps, int stride, int64_t at, int column, int n,
                                     int64_t inner, A* buffers, int64_t line, T* to, T* to_end) {
  constexpr int L = kLanes<A>;
  const int64_t used = ((column + n - 1) / stride + 1) * inner;
  Vec<A> v[1];
  for (int phase = 0; phase < stride; phase++)
    for (int64_t i = 0; i < used; i += L) sum(taps[phase], at + i, v), store<A>(buffers + phase * line + i, v[0]);
  const A *from = buffers + column / stride * inner, *const buffers_end = buffers + stride * line + L;
  for (int k = 0, phase = column % stride; k < n; k++, to += inner) {
    const A* const block = from + phase * line;
    if (inner == 1) *to = T(*block);
    else if (inner <= L && to_end - to >= L) store_as<A>(to, load<A>(block));
    else copy_line(block, inner, buffers_end, to, to_end);
    if (++phase == stride) phase = 0, from += inner;
  }
}

// Writes dx [planes, H, W, inner] in pieces [begin, end). lay(piece) -> Laid
template <class T, class Lay, GradientSource<acc_t<T>> Sum>
CONVLAB_INLINE void each_gradient_rows(const Pooling& g, T* dx, int64_t begin, int64_t end,
                                       const GradientBench<acc_t<T>>& bench, Lay lay, const Sum& sum) {
  using A = acc_t<T>;
  const PoolAxis &rows = g.rows, &columns = g.columns;
  const int64_t row = columns.size * g.inner;
  const auto [of_columns, of_rows, across, down_by_phase, whole_taps, some_taps, row_taps, whole, some, buffers] =
      bench;
  by_phase(columns, columns.reach * g.inner, g.inner, 1, of_columns, across);
  int64_t multiplied = -1;
  for (int64_t index = begin; index < end; index++) {
    const Piece piece = piece_of(g, index);
    const Laid laid = lay(piece);
    if (multiplied != laid.line) {
      by_phase(rows, 0, multiplied = laid.line, columns.kernel, of_rows, down_by_phase);
      multiply(down_by_phase, rows.stride, across, columns.stride, whole_taps, whole);
    }
    const int h0 = larger(0, piece.row * rows.stride - rows.pad),
              h1 = smaller(rows.size, (piece.row + piece.rows) * rows.stride - rows.pad);
    const int w0 = larger(0, piece.column * columns.stride - columns.pad),
              w1 = smaller(columns.size, (piece.column + piece.columns) * columns.stride - columns.pad);
    const int column = w0 + columns.pad - piece.column * columns.stride;
    const bool whole_rows = w1 - w0 == columns.size;
    T* const last_end = dx + ((piece.plane + piece.planes - 1) * rows.size + h1 - 1) * row + w1 * g.inner;
    // whole planes that windows cover to their last row are one
    const bool as_one = g.side_by_side && rows.pad == 0 && h1 == rows.outputs * rows.stride &&
                        laid.plane == rows.outputs * laid.line && whole_rows;
    const int64_t planes = as_one && h0 == 0 ? 1 : piece.planes;
    for (int64_t n = 0; n < planes; n++)
      for (int h = h0, count; h < h1; h += count) {
        const int t = (h + rows.pad) / rows.stride, phase = (h + rows.pad) % rows.stride;
        // lines with all of their rows, and all outputs that cover these
        const int lines =
            whole_rows && phase == 0 && t >= rows.reach ? smaller(rows.outputs, (h1 + rows.pad) / rows.stride) - t : 0;
        T* to = dx + ((piece.plane + n) * rows.size + h) * row + w0 * g.inner;
        int64_t at = laid.offset + n * laid.plane;
        const Taps* taps = some;
        count = 1;
        if (lines > 0) {
          count = lines * rows.stride, taps = whole, at += t * laid.line;
        } else {
          const Taps down = covering(rows, h, laid.line, columns.kernel, row_taps);
          multiply(&down, 1, across, columns.stride, some_taps, some);
        }
        if (lines > 0 && g.side_by_side) {
          const int64_t all = planes < piece.planes ? lines * piece.planes : lines;
          if (columns.stride == 2 && g.inner == 1)
            rows_of_pairs<A>(sum, taps, rows.stride, all, at, laid.line, columns.size, to, last_end);
          else
            rows_of_blocks<A>(sum, taps, rows.stride, columns.stride, all, at, laid.line, columns.size, g.inner, to,
                              last_end);
          continue;
        }
        for (int i = 0; i < count; i++, to += row) {
          if (i > 0 && i % rows.stride == 0) taps = whole, at += laid.line;
          T* const to_end = whole_rows ? last_end : to + (w1 - w0) * g.inner;
          if (columns.stride == 1)
            row_of_one_phase<A>(sum, *taps, at + column * g.inner, (w1 - w0) * g.inner, to, to_end);
          else if (columns.stride == 2 && g.inner == 1)
            row_of_two_phases<A>(sum, taps[column % 2], taps[(column + 1) % 2], at + column / 2, at + (column + 1) / 2,
                                 w1 - w0, to, to_end);
          else row_of_phases<A>(sum, taps, columns.stride, at, column, w1 - w0, g.inner, buffers, g.line, to, to_end);
          taps += columns.stride;
        }
      }
  }
}

// Lays the outputs' `from` [planes, P, Q, inner] out in lines
template <class To, class From>
CONVLAB_INLINE Laid lay_out_outputs(const Pooling& g, const Piece& p, const From* from, To* lines, To* lines_end) {
  const int phase = 0, P = g.rows.outputs, Q = g.columns.outputs;
  const Lines rows{P, 1, 0, p.row - g.rows.reach, p.rows + g.rows.reach, &phase, 1};
  const Lines columns{Q, 1, 0, p.column - g.columns.reach, p.columns + g.columns.reach, &phase, 1};
  Span span;
  find_spans(columns, &span);
  const int64_t plane = int64_t(P) * Q * g.inner;
  lay_out(g, rows, columns, &span, p.planes, from + p.plane * plane, from + g.planes * plane, To(0), lines, lines_end);
  return {-rows.begin * g.line, g.plane, g.line};
}

}  // namespace convlab::CONVLAB_ISA
