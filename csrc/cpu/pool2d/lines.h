// Laying planes out in lines (pooling.h). Lines hold the type of the arithmetic, or offsets as they are. A
// line may be written a vector too far, because the next one is written after it; behind the last there is room.
#pragma once
#include "cpu/pool2d/pooling.h"
#include "cpu/simd/vec.h"

namespace convlab::CONVLAB_ISA {

using namespace convlab::pooling;

CONVLAB_INLINE int smaller(int64_t a, int64_t b) { return int(a < b ? a : b); }
CONVLAB_INLINE int larger(int64_t a, int64_t b) { return int(a > b ? a : b); }

// A unit of work: planes, and outputs, or, in backward, lines of x
struct Piece {
  int64_t plane, planes;
  int row, rows, column, columns;  // the first, and how many
};

CONVLAB_INLINE int pieces_of(const PoolPart& part) { return (part.end - part.begin + part.each - 1) / part.each; }

CONVLAB_INLINE Piece piece_of(const Pooling& g, int64_t index) {
  const int across = pieces_of(g.column_part), down = pieces_of(g.row_part);
  const int64_t plane = index / across / down * g.planes_each;
  const int row = g.row_part.begin + int(index / across % down) * g.row_part.each,
            column = g.column_part.begin + int(index % across) * g.column_part.each;
  return {plane,
          smaller(g.planes - plane, g.planes_each),
          row,  //
          smaller(g.row_part.end - row, g.row_part.each),
          column,
          smaller(g.column_part.end - column, g.column_part.each)};
}

// from [n] -> to, in vectors of the wider type; loads and stores up to a vector more, where the ends allow it
template <class To, class From>
CONVLAB_INLINE void copy_line(const From* from, int64_t n, const From* from_end, To* to, To* to_end) {
  using V = std::conditional_t<(sizeof(To) > sizeof(From)), To, From>;
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

// What `outputs` from `first` on read
CONVLAB_INLINE Lines lines_of(const PoolAxis& a, int first, int outputs) {
  return {a.size, a.stride, a.pad, first, outputs + a.reach, a.phases, a.phase_count};
}

CONVLAB_INLINE void find_spans(const Lines& l, Span* spans) {
  for (int i = 0; i < l.phase_count; i++) {
    const int first = l.begin * l.stride + l.phases[i] - l.pad;
    const int begin = smaller(l.count, first < 0 ? (-first + l.stride - 1) / l.stride : 0);
    spans[i] = {begin, larger(begin, first < l.size ? smaller(l.count, (l.size - 1 - first) / l.stride + 1) : 0),
                first};
  }
}

// One row of a tensor, and where it is laid
template <class To, class From> struct Row {
  const From *x, *x_end;  // x_end: of the tensor
  To *line, *lines_end;
};

// One phase -> line [count, inner]
template <class To, class From>
CONVLAB_INLINE void lay_phase(const Row<To, From>& row, const Span& span, int count, int stride, int64_t inner, To fill,
                              To* line) {
  fill_line(line, span.begin * inner, fill);
  const From* from = row.x + (span.first + span.begin * stride) * inner;
  if (stride == 1)
    copy_line(from, (span.end - span.begin) * inner, row.x_end, line + span.begin * inner, row.lines_end);
  else
    for (int j = span.begin; j < span.end; j++, from += stride * inner)
      copy_line(from, inner, row.x_end, line + j * inner, row.lines_end);
  fill_line(line + span.end * inner, (count - span.end) * inner, fill);
}

// Both phases of stride 2, inner = 1 -> even, odd [count]
template <class To, class From>
CONVLAB_INLINE void lay_pairs(const Row<To, From>& row, const Span& first, const Span& second, int count, To fill,
                              To* even, To* odd) {
  constexpr int L = kLanes<To>;
  using all = indices_to<L>;
  const int begin = larger(first.begin, second.begin), end = larger(begin, smaller(first.end, second.end));
  fill_line(even, begin, fill), fill_line(odd, begin, fill);
  for (int i = begin; i < end; i += L) {
    if (i + L > end && end - begin > L) i = end - L;  // again what lies before
    const From* const from = row.x + first.first + 2 * i;
    if (row.x_end - from >= 2 * L) {
      const Vec<To> a = load_as<To>(from), b = load_as<To>(from + L);
      store<To>(even + i, unzip<To, 0>(a, b, all{}));
      store<To>(odd + i, unzip<To, 1>(a, b, all{}));
    } else {
      for (int j = 0; i + j < end && j < L; j++) even[i + j] = To(from[2 * j]), odd[i + j] = To(from[2 * j + 1]);
    }
  }
  fill_line(even + end, count - end, fill), fill_line(odd + end, count - end, fill);
  for (int i = first.begin; i < begin; i++) even[i] = To(row.x[first.first + 2 * i]);
  for (int i = second.begin; i < begin; i++) odd[i] = To(row.x[second.first + 2 * i]);
  for (int i = end; i < first.end; i++) even[i] = To(row.x[first.first + 2 * i]);
  for (int i = end; i < second.end; i++) odd[i] = To(row.x[second.first + 2 * i]);
}

// Any phases, inner = 1 -> lines [phases, count], `phase` apart
template <class To, class From>
CONVLAB_INLINE void lay_elements(const Row<To, From>& row, const Span* spans, int phases, int count, int stride,
                                 To fill, int64_t phase) {
  for (int j = 0; j < count; j++)
    for (int b = 0; b < phases; b++)
      row.line[b * phase + j] = j >= spans[b].begin && j < spans[b].end ? To(row.x[spans[b].first + j * stride]) : fill;
}

constexpr int kBytesAhead =
    4096;  // reading pauses after each piece, and the machine's own prefetching at the end of each page

// lay(row) for all rows, in the order of memory, which prefetching is made for; x is null outside the planes
template <class To, class From, class F>
CONVLAB_INLINE void each_row(const Pooling& g, const Lines& rows, int64_t length, int64_t planes, const From* from,
                             const From* from_end, To* to, To* to_end, int64_t phase, F lay) {
  const int size = rows.size, stride = rows.stride, count = rows.count, phases = rows.phase_count,
            first = rows.begin * stride - rows.pad;
  const int64_t plane_step = g.plane, line_step = g.line;
  const int* const phase_list = rows.phases;
  for (int64_t n = 0; n < planes; n++, from += size * length)
    for (int i = 0; i < count; i++)
      for (int a = 0; a < phases; a++) {
        const int h = first + i * stride + phase_list[a];
        const bool inside = h >= 0 && h < size;
        for (int64_t j = 0; inside && j < length; j += 64 / int(sizeof(From)))
          __builtin_prefetch(from + h * length + j + kBytesAhead / int(sizeof(From)));
        lay(Row<To, From>{inside ? from + h * length : nullptr, from_end,
                          to + a * phase + n * plane_step + i * line_step, to_end});
      }
}

// from [planes, rows.size, columns.size, inner], of a tensor up to from_end -> to [phases of rows, phases of columns,
// planes, rows.count, columns.count, inner], with the steps of g, and with `fill` outside. spans: of the columns
template <class To, class From>
void lay_out(const Pooling& g, const Lines& rows, const Lines& columns, const Span* spans, int64_t planes,
             const From* from, const From* from_end, To fill, To* to, To* to_end) {
  const int64_t inner = g.inner, phase = g.phase, length = columns.size * inner;
  const int count = columns.count, stride = columns.stride, phases = columns.phase_count;
  if (inner == 1 && stride == 2 && phases == 2) {
    const Span first = spans[0], second = spans[1];
    each_row(g, rows, length, planes, from, from_end, to, to_end, phases * phase, [&](const Row<To, From>& row) {
      if (row.x) lay_pairs(row, first, second, count, fill, row.line, row.line + phase);
      else fill_line(row.line, count, fill), fill_line(row.line + phase, count, fill);
    });
  } else {
    each_row(g, rows, length, planes, from, from_end, to, to_end, phases * phase, [&](const Row<To, From>& row) {
      if (row.x && inner == 1 && stride > 1) return lay_elements(row, spans, phases, count, stride, fill, phase);
      for (int b = 0; b < phases; b++) {
        if (row.x) lay_phase(row, spans[b], count, stride, inner, fill, row.line + b * phase);
        else fill_line(row.line + b * phase, count * inner, fill);
      }
    });
  }
}

}  // namespace convlab::CONVLAB_ISA
