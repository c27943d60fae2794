// The outputs of poolings, in blocks of rows that have the same taps: where x is read, and how.
#pragma once
#include "cpu/pool2d/taps.h"

namespace convlab::CONVLAB_ISA {

// What a vector of outputs reads for an entry of its taps. read(at, f) calls f(value, id - the entry's id), in the
// order of the window.
template <class A, class T> struct OneTap {  // x in lines
  const T* x;
  static constexpr int per_output = 1;  // elements of x from one output to the next
  template <class F> CONVLAB_INLINE void read(int64_t at, F f) const { f(load_as<A>(x + at), 0); }
};

template <class A, class T> struct TwoTaps {  // x in memory: windows two wide, side by side, all inside x
  const T* x;
  static constexpr int per_output = 2;
  template <class F> CONVLAB_INLINE void read(int64_t at, F f) const {
    using all = indices_to<kLanes<A>>;
    const Vec<A> a = load_as<A>(x + at), b = load_as<A>(x + at + kLanes<A>);
    f(unzip<A, 0>(a, b, all{}), 0);
    f(unzip<A, 1>(a, b, all{}), 1);
  }
};

struct OutputRows {
  int p, rows;  // output row p of its plane, and how many like it
  int first_tap = 0;  // of the window's rows, inside x
  Taps taps{};
  int64_t at = 0, step = 0;  // of the first row in x, and to the next
  int column = 0;  // output column,
  int64_t n = 0;  // and elements from there on
  int64_t to = 0, to_step = 0, to_end = 0;  // in y. Up to to_end it is written row after row, and may be too far.

  // Of a window's taps, `entries` a row, those in the rows inside x
  CONVLAB_INLINE OutputRows& over(const Inside& inside, const Tap* all, int entries) {
    first_tap = inside.begin;
    taps = {all + inside.begin * entries, (inside.end - inside.begin) * int64_t(entries)};
    return *this;
  }
};

// Calls rows(source, OutputRows) for pieces [begin, end).  x [planes, H, W, inner], with `fill` around it. alike:
// whether outputs whose windows lie inside x do not ask where in their row they are
template <class T, class F>
CONVLAB_INLINE void each_output_rows(const Pooling& g, const T* x, acc_t<T> fill, bool alike, int64_t begin,
                                     int64_t end, const OutputBench<acc_t<T>>& bench, F rows) {
  using A = acc_t<T>;
  const auto [in_lines, in_memory, spans, lines] = bench;
  const int R = g.rows.kernel, S = g.columns.kernel, P = g.rows.outputs, Q = g.columns.outputs,
            phases = g.columns.phase_count;
  const int64_t x_row = g.columns.size * g.inner, x_plane = g.rows.size * x_row;
  for (int r = 0; r < R; r++) {
    for (int s = 0; s < S; s++)
      in_lines[r * S + s] = {(g.rows.phase_of_tap[r] * phases + g.columns.phase_of_tap[s]) * g.phase +
                                 r * g.rows.dilation / g.rows.stride * g.line +
                                 s * g.columns.dilation / g.columns.stride * g.inner,
                             r * S + s};
    in_memory[r] = {r * g.rows.dilation * x_row, r * S};
  }
  const int64_t in_all = g.rows.phase_count * phases * g.phase;
  const T* const x_end = x + g.planes * x_plane;
  const bool pairs = S == 2 && g.columns.stride == 2 && g.columns.dilation == 1 && g.columns.pad == 0 &&
                     2 * Q <= g.columns.size && g.inner == 1;

  for (int64_t index = begin; index < end; index++) {
    const Piece piece = piece_of(g, index);
    const T* const from = x + piece.plane * x_plane;
    // pairs are read up to a vector behind their row
    const bool as_it_lies =
        pairs &&
        x_end - (from + (piece.planes - 1) * x_plane +
                 smaller(g.rows.size, (piece.row + piece.rows) * g.rows.stride + R * g.rows.dilation) * x_row) >=
            2 * kLanes<A>;
    if (!as_it_lies) {
      const Lines rows_laid = lines_of(g.rows, piece.row, piece.rows),
                  columns_laid = lines_of(g.columns, piece.column, piece.columns);
      find_spans(columns_laid, spans);
      lay_out(g, rows_laid, columns_laid, spans, piece.planes, from, x_end, fill, lines, lines + in_all);
    }
    const int64_t n = piece.columns * g.inner, y_row = Q * g.inner,
                  first = (piece.plane * P + piece.row) * y_row + piece.column * g.inner;
    const int64_t last = first + ((piece.planes - 1) * P + piece.rows - 1) * y_row;
    // rows whose lines lie as the outputs do, and planes as well, are one long row
    const int like_first = whole_windows(g.rows, piece.row, piece.row + piece.rows);
    if (alike && !as_it_lies && g.line == y_row && like_first == piece.rows &&
        (piece.planes == 1 || g.plane == P * y_row)) {
      const int64_t all = last - first + n;
      rows(OneTap<A, A>{lines},
           OutputRows{.p = piece.row, .rows = 1, .n = all, .to = first, .to_end = first + all}.over(
               inside(g.rows, piece.row), in_lines, S));
      continue;
    }
    for (int64_t plane = 0; plane < piece.planes; plane++)
      for (int i = 0, count; i < piece.rows; i += count) {
        const int p = piece.row + i;
        const Inside taps = inside(g.rows, p);
        count = piece.columns == Q ? whole_windows(g.rows, p, piece.row + piece.rows) : 1;
        const int64_t to = first + (plane * P + i) * y_row;
        OutputRows run{.p = p,
                       .rows = count,
                       .column = piece.column,
                       .n = n,
                       .to = to,
                       .to_step = y_row,
                       .to_end = (piece.columns == Q ? last : to) + n};
        if (as_it_lies) {
          run.at = plane * x_plane + (p * g.rows.stride - g.rows.pad) * x_row + 2 * piece.column;
          run.step = g.rows.stride * x_row;
          rows(TwoTaps<A, T>{from}, run.over(taps, in_memory, 1));
        } else {
          run.at = plane * g.plane + i * g.line, run.step = g.line;
          rows(OneTap<A, A>{lines}, run.over(taps, in_lines, S));
        }
      }
  }
}

}  // namespace convlab::CONVLAB_ISA
