// Average pooling of planes laid out in lines, with zeros around x.
#include "cpu/pool2d/gradients.h"
#include "cpu/pool2d/outputs.h"

namespace convlab::CONVLAB_ISA {

// What the outputs of a row are divided by
template <class A> class Divisors {
 public:
  Divisors(const Pooling& g, const Averages& a, A* columns) : averages_(a), columns_(columns) {
    for (int64_t i = 0; !a.equal_columns && i < g.columns.outputs * g.inner; i++)
      columns_[i] = A(a.columns[i / g.inner]);
  }
  // v of output row p, from element i of it on
  CONVLAB_INLINE Vec<A> divide(Vec<A> v, int p, int64_t i) const {
    const A row = A(averages_.rows[p]);
    return averages_.equal_columns ? v / (row * A(averages_.columns[0])) : v / (row * load<A>(columns_ + i));
  }
  // In place; the line begins with element `first` of output row p
  CONVLAB_INLINE void divide_line(A* line, int64_t n, int p, int64_t first) const {
    for (int64_t i = 0; i < n; i += kLanes<A>)
      store_some<A>(line + i, divide(load<A>(line + i), p, first + i), smaller(n - i, kLanes<A>));
  }

 private:
  const Averages& averages_;
  A* const columns_;
};

// y: a row's sums, divided
template <class A, class Source, class T>
[[gnu::noinline]] void average_rows(const Source& source, const OutputRows& rows, const Divisors<A>& divisors,
                                    int64_t first, T* y) {
  int64_t at = rows.at, to = rows.to;
  for (int p = rows.p; p < rows.p + rows.rows; p++, at += rows.step, to += rows.to_step)
    for (int64_t i = 0; i < rows.n; i += kLanes<A>) {
      i = within<A>(i, rows.n);
      Vec<A> sum{};
      for (const Tap* tap = rows.taps.taps; tap < rows.taps.taps + rows.taps.count; tap++)
        source.read(at + source.per_output * i + tap->offset, [&](Vec<A> value, int) { sum += value; });
      store_within<A>(y + to + i, divisors.divide(sum, p, first + i), rows.n - i, y + rows.to_end);
    }
}

// x [planes, H, W, inner] -> y [planes, P, Q, inner]
template <class T>
void average_forward(const Pooling& g, const Averages& averages, const T* x, T* y, int64_t begin, int64_t end,
                     char* scratch) {
  using A = acc_t<T>;
  Carver carver{scratch};
  const auto bench = average_memory<A>(carver, false, g, averages, kLanes<A>);
  const Divisors<A> divisors(g, averages, bench.divisors);
  each_output_rows(g, x, A(0), averages.equal_columns, begin, end, bench.outputs,
                   [&](const auto& source, const OutputRows& rows) {
                     average_rows<A>(source, rows, divisors, rows.column * g.inner, y);
                   });
}

// dy, divided -> vectors of dx
template <class A> struct Shares {
  const A* shares;

  template <int U> CONVLAB_INLINE void operator()(const Taps& taps, int64_t at, Vec<A> (&sum)[U]) const {
#pragma GCC unroll 2
    for (int u = 0; u < U; u++) sum[u] = Vec<A>{};
    for (const Tap* tap = taps.taps; tap < taps.taps + taps.count; tap++)
#pragma GCC unroll 2
      for (int u = 0; u < U; u++) sum[u] += load<A>(shares + at + tap->offset + u * kLanes<A>);
  }
  template <class F> CONVLAB_INLINE void of_row(int64_t at, int, int count, F f) const {
    const Vec<A> v = load<A>(shares + at);
    for (int s = 0; s < count; s++) f(s, v);
  }
  CONVLAB_INLINE void of_pair(int64_t at, int, Vec<A>& first, Vec<A>& second) const {
    first = second = load<A>(shares + at);
  }
};

// dy [planes, P, Q, inner] -> dx [planes, H, W, inner]
template <class T>
void average_backward(const Pooling& g, const Averages& averages, const T* dy, T* dx, int64_t begin, int64_t end,
                      char* scratch) {
  using A = acc_t<T>;
  Carver carver{scratch};
  const auto bench = average_memory<A>(carver, true, g, averages, kLanes<A>);
  A* const lines = bench.dy;
  const Divisors<A> divisors(g, averages, bench.divisors);
  const auto lay = [&](const Piece& piece) {
    const Laid laid = lay_out_outputs(g, piece, dy, lines, lines + g.phase);
    const int p0 = larger(0, piece.row - g.rows.reach), p1 = smaller(g.rows.outputs, piece.row + piece.rows);
    const int q0 = larger(0, piece.column - g.columns.reach),
              q1 = smaller(g.columns.outputs, piece.column + piece.columns);
    for (int64_t plane = 0; plane < piece.planes; plane++)
      for (int p = p0; p < p1; p++)
        divisors.divide_line(
            lines + laid.offset + plane * laid.plane + p * laid.line + (q0 - piece.column + g.columns.reach) * g.inner,
            (q1 - q0) * g.inner, p, q0 * g.inner);
    return laid;
  };
  each_gradient_rows(g, dx, begin, end, bench.gradients, lay, Shares<A>{lines});
}

}  // namespace convlab::CONVLAB_ISA

CONVLAB_DEFINE(average_forward, average_forward)
CONVLAB_DEFINE(average_backward, average_backward)
