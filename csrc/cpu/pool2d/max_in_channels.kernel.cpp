// Max pooling along channels, a vector of them at least.
#include "cpu/pool2d/max_windows.h"

namespace convlab::CONVLAB_ISA {

// x [N, H, W, C] -> y, offsets (or null) [N, P, Q, C]
template <class A, class M>
void forward_of_channels(const Pooling& g, const A* x, A* y, M* offsets, int64_t begin, int64_t end, char* scratch) {
  const Axis &rows = g.rows, &columns = g.columns;
  const int64_t C = g.inner, x_row = columns.size * C;
  const OneTap<A, A> source{x};
  Carver carver{scratch};
  Tap* const taps = channels_memory(carver, g, false).window;
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
void backward_of_channels(const Pooling& g, const A* dy, const M* offsets, A* dx, int64_t begin, int64_t end,
                          char* scratch) {
  const Axis &rows = g.rows, &columns = g.columns;
  const int64_t C = g.inner, dy_row = columns.outputs * C, row = columns.size * C;
  const Won<A, M> won{dy, offsets};
  Carver carver{scratch};
  auto [none, row_taps, column_taps, by_column] = channels_memory(carver, g, true);
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

template <class A>
void max_forward_in_channels(const Pooling& g, const A* x, A* y, void* offsets, int64_t begin, int64_t end,
                             char* scratch) {
  if (g.byte_offsets) forward_of_channels(g, x, y, static_cast<uint8_t*>(offsets), begin, end, scratch);
  else forward_of_channels(g, x, y, static_cast<int32_t*>(offsets), begin, end, scratch);
}

template <class A>
void max_backward_in_channels(const Pooling& g, const A* dy, const void* offsets, A* dx, int64_t begin, int64_t end,
                              char* scratch) {
  if (g.byte_offsets) backward_of_channels(g, dy, static_cast<const uint8_t*>(offsets), dx, begin, end, scratch);
  else backward_of_channels(g, dy, static_cast<const int32_t*>(offsets), dx, begin, end, scratch);
}

}  // namespace convlab::CONVLAB_ISA

CONVLAB_DEFINE_FOR(max_channels_forward, max_forward_in_channels<float>, max_forward_in_channels<double>)
CONVLAB_DEFINE_FOR(max_channels_backward, max_backward_in_channels<float>, max_backward_in_channels<double>)
