// Laying planes out in lines (csrc/cpu/pooling.h). Lines hold the type of the arithmetic, or offsets as they are. A line may be
// written a vector too far, because the next one is written after it; behind the last there is room.
#pragma once
#include "../pooling.h"
#include "simd.h"

namespace convlab::CONVLAB_ISA {
#ifndef AHEAD
#define AHEAD 1024
#endif

CONVLAB_INLINE int smaller(int64_t a, int64_t b) { return int(a < b ? a : b); }
CONVLAB_INLINE int larger(int64_t a, int64_t b) { return int(a > b ? a : b); }

// The part of a call's work between two looks at it: planes, and outputs, or, in backward, lines of x
struct Piece {
  int64_t plane, planes;
  int row, rows, column, columns;  // the first, and how many
};

CONVLAB_INLINE int pieces_of(const PoolPart& part) { return (part.end - part.begin + part.each - 1) / part.each; }

CONVLAB_INLINE Piece piece_of(const Pooling& g, int64_t index) {
  const int across = pieces_of(g.column_part), down = pieces_of(g.row_part);
  const int64_t plane = index / across / down * g.planes_each;
  const int row = g.row_part.begin + int(index / across % down) * g.row_part.each, column = g.column_part.begin + int(index % across) * g.column_part.each;
  return {plane, smaller(g.planes - plane, g.planes_each), row,  //
          smaller(g.row_part.end - row, g.row_part.each), column, smaller(g.column_part.end - column, g.column_part.each)};
}

template <bool first, class A, class B> struct either { using type = A; };
template <class A, class B> struct either<false, A, B> { using type = B; };

// from [n] -> to, in vectors of the wider type; loads and stores up to a vector more, where the ends allow it
template <class To, class From> CONVLAB_INLINE void copy_line(const From* from, int64_t n, const From* from_end, To* to, To* to_end) {
  using V = typename either<(sizeof(To) > sizeof(From)), To, From>::type;
  constexpr int L = kLanes<V>;
  int64_t i = 0;
  for (; i + L <= n; i += L) store_as<V>(to + i, load_as<V>(from + i));
  if (i == n) return;
  if (n > L) i = n - L;  // again what lies before
  if (from_end - (from + i) >= L && to_end - (to + i) >= L) store_as<V>(to + i, load_as<V>(from + i));
  else
    for (; i < n; i++) to[i] = To(V(from[i]));
}

// At least n
template <class A> CONVLAB_INLINE void fill_line(A* to, int64_t n, A value) {
  for (int64_t i = 0; i < n; i += kLanes<A>) store<A>(to + i, broadcast<A>(value));
}

// What is laid out, in one dimension: `count` lines from `begin` on of each phase, of a tensor of `size` places
struct Lines {
  int size, stride, pad, begin, count;
  const int* phases;
  int phase_count;
};

// The lines of a phase that hold places, and the first of these
struct Span {
  int begin, end, place;
};

CONVLAB_INLINE void find_spans(const Lines& l, Span* spans) {
  for (int i = 0; i < l.phase_count; i++) {
    const int offset = l.phases[i] - l.pad, begin = larger(0, (l.stride - 1 - offset) / l.stride - l.begin);
    const int end = smaller(l.count, (l.size - 1 - offset + l.stride) / l.stride - l.begin);
    spans[i] = begin < end ? Span{begin, end, (l.begin + begin) * l.stride + offset} : Span{l.count, l.count, 0};
  }
}

// x in one phase -> line [count, inner]
template <class To, class From>
CONVLAB_INLINE void lay_phase(const Span& span, int count, int stride, int64_t inner, const From* x, const From* x_end, To fill, To* line, To* lines_end) {
  fill_line(line, span.begin * inner, fill);
  const From* from = x + span.place * inner;
  if (stride == 1) copy_line(from, (span.end - span.begin) * inner, x_end, line + span.begin * inner, lines_end);
  else
    for (int j = span.begin; j < span.end; j++, from += stride * inner) {
      if (inner == 1) line[j] = To(*from);
      else copy_line(from, inner, x_end, line + j * inner, lines_end);
    }
  fill_line(line + span.end * inner, (count - span.end) * inner, fill);
}

// x in the two phases of stride 2, inner = 1 -> even, odd [count]
template <class To, class From> CONVLAB_INLINE void lay_pairs(const Span (&spans)[2], int count, const From* x, const From* x_end, To fill, To* even, To* odd) {
  constexpr int L = kLanes<To>;
  using all = typename indices_to<L>::type;
  const int begin = larger(spans[0].begin, spans[1].begin), end = larger(begin, smaller(spans[0].end, spans[1].end));
  fill_line(even, begin, fill), fill_line(odd, begin, fill);
  const From* const pairs = x + spans[0].place + 2 * (begin - spans[0].begin) - 2 * begin;
  for (int i = begin; i < end; i += L) {
    if (i + L > end && end - begin > L) i = end - L;  // again what lies before
    const From* const from = pairs + 2 * i;
    __builtin_prefetch(from + AHEAD), __builtin_prefetch(from + AHEAD + L);
    if (x_end - from >= 2 * L) {
      const Vec<To> a = load_as<To>(from), b = load_as<To>(from + L);
      store<To>(even + i, unzip<To, 0>(a, b, all{}));
      store<To>(odd + i, unzip<To, 1>(a, b, all{}));
    } else {
      for (int j = 0; i + j < end && j < L; j++) even[i + j] = To(from[2 * j]), odd[i + j] = To(from[2 * j + 1]);
    }
  }
  fill_line(even + end, count - end, fill), fill_line(odd + end, count - end, fill);
  if (spans[1].begin < begin) odd[begin - 1] = To(pairs[2 * begin - 1]);
  if (end < spans[0].end) even[end] = To(pairs[2 * end]);
}

// lay(x, line) for all rows, in the order of memory: prefetching is made for that. x is null outside the planes.
template <class To, class From, class F>
CONVLAB_INLINE void each_row(const Pooling& g, const Lines& rows, int64_t row, int64_t planes, const From* from, To* to, int64_t phase, F lay) {
  const int size = rows.size, stride = rows.stride, count = rows.count, phases = rows.phase_count, first = rows.begin * stride - rows.pad;
  const int64_t plane_step = g.plane, line_step = g.line;
  const int* const phase_list = rows.phases;
  for (int64_t n = 0; n < planes; n++, from += size * row)
    for (int i = 0; i < count; i++)
      for (int a = 0; a < phases; a++) {
        const int h = first + i * stride + phase_list[a];
        lay(h >= 0 && h < size ? from + h * row : nullptr, to + a * phase + n * plane_step + i * line_step);
      }
}

// from [planes, rows.size, columns.size, inner], of a tensor up to from_end -> to [phases of rows, phases of columns, planes, rows.count,
// columns.count, inner], with the steps of g, and with `fill` outside. spans: of the columns
template <class To, class From>
void lay_out(const Pooling& g, const Lines& rows, const Lines& columns, const Span* spans, int64_t planes, const From* from, const From* from_end, To fill,
             To* to, To* to_end) {
  const int64_t inner = g.inner, phase = g.phase, row = columns.size * inner;
  const int count = columns.count, stride = columns.stride, phases = columns.phase_count;
  if (stride == 2 && phases == 2 && inner == 1) {
    const Span both[2] = {spans[0], spans[1]};
    each_row(g, rows, row, planes, from, to, phases * phase, [&](const From* x, To* line) {
      if (x) lay_pairs(both, count, x, from_end, fill, line, line + phase);
      else fill_line(line, count, fill), fill_line(line + phase, count, fill);
    });
  } else {
    each_row(g, rows, row, planes, from, to, phases * phase, [&](const From* x, To* line) {
      for (int b = 0; b < phases; b++) {
        if (x) lay_phase(spans[b], count, stride, inner, x, from_end, fill, line + b * phase, to_end);
        else fill_line(line + b * phase, count * inner, fill);
      }
    });
  }
}

}  // namespace convlab::CONVLAB_ISA
