// Max pooling of planes laid out in lines.
#include "cpu/pool2d/max_windows.h"

namespace convlab::CONVLAB_ISA {

// x [planes, H, W, inner] -> y, offsets (or null) [planes, P, Q, inner]
template <class T, class M>
void forward_of_lines(const Pooling& g, const T* x, T* y, M* offsets, int64_t begin, int64_t end, char* scratch) {
  using A = acc_t<T>;
  Carver carver{scratch};
  const auto bench = max_forward_memory<A>(carver, g, kLanes<A>);
  Integer<A>* const first = g.columns.pad > 0 ? bench.first : nullptr;
  for (int64_t i = 0; first && i < g.columns.outputs * g.inner; i++)
    first[i] = inside(g.columns, int(i / g.inner)).begin;
  each_output_rows(g, x, -A(__builtin_inff()), !first, begin, end, bench.outputs,
                   [&](const auto& source, const OutputRows& rows) {
                     largest_rows<A>(source, rows, rows.first_tap * g.columns.kernel,
                                     first ? first + rows.column * g.inner : nullptr, y, offsets);
                   });
}

// dy, offsets [planes, P, Q, inner] -> dx [planes, H, W, inner]
template <class T, class M>
void backward_of_lines(const Pooling& g, const T* dy, const M* offsets, T* dx, int64_t begin, int64_t end,
                       char* scratch) {
  using A = acc_t<T>;
  Carver carver{scratch};
  const auto bench = max_backward_memory<A>(carver, g, kLanes<A>);
  M* lines_of_offsets;
  if constexpr (sizeof(M) == 1) lines_of_offsets = bench.byte_offsets;
  else lines_of_offsets = bench.int_offsets;
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
    won = {bench.dy, lines_of_offsets};
    lay_out_outputs(g, p, offsets, lines_of_offsets, lines_of_offsets + g.phase);
    return lay_out_outputs(g, p, dy, bench.dy, bench.dy + g.phase);
  };
  each_gradient_rows(g, dx, begin, end, bench.gradients, lay, won);
}

template <class T>
void max_forward_in_lines(const Pooling& g, const T* x, T* y, void* offsets, int64_t begin, int64_t end,
                          char* scratch) {
  if (g.byte_offsets) forward_of_lines(g, x, y, static_cast<uint8_t*>(offsets), begin, end, scratch);
  else forward_of_lines(g, x, y, static_cast<int32_t*>(offsets), begin, end, scratch);
}

template <class T>
void max_backward_in_lines(const Pooling& g, const T* dy, const void* offsets, T* dx, int64_t begin, int64_t end,
                           char* scratch) {
  if (g.byte_offsets) backward_of_lines(g, dy, static_cast<const uint8_t*>(offsets), dx, begin, end, scratch);
  else backward_of_lines(g, dy, static_cast<const int32_t*>(offsets), dx, begin, end, scratch);
}

}  // namespace convlab::CONVLAB_ISA

CONVLAB_DEFINE(max_lines_forward, max_forward_in_lines)
CONVLAB_DEFINE(max_lines_backward, max_backward_in_lines)
