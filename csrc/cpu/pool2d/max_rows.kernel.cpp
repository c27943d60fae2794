// The gradient of max pooling along rows, whose windows are one row high and one or two columns apart.
//
// What it does    The columns that are as far from a window's first, a phase, lie side by side as the windows do: a vector
//                 of them takes from each window that reaches it where its offset says so. Phases are zipped to a row.
// Against scattering  no zeros to write first, and eight windows in the time of one.
#include "cpu/pool2d/walk.h"

namespace convlab::CONVLAB_ISA {

// Rows [begin, end): dy, offsets [rows, Q] -> dx [rows, W]
template <int kStride, class T>
void rows_of_stride(const Axis& a, const T* dy, const uint8_t* offsets, T* dx, int64_t begin, int64_t end,
                    char* scratch) {
  using A = acc_t<T>;
  constexpr int L = kLanes<A>;
  Carver carver{scratch};
  const pooling::RowBench<A> bench(carver, a, L);
  const int Q = a.outputs, W = a.size, before = bench.before, steps = bench.steps;
  for (int i = 0; i < before + steps; i++) bench.dy[i] = 0, bench.offsets[i] = 0;
  const A* const grads = bench.dy + before;
  const uint8_t* const taps = bench.offsets + before;
  for (int64_t row = begin; row < end; row++) {
    const T* const from = dy + row * Q;
    const int known = Q < steps ? Q : steps;
    for (int q = 0; q < known; q += L)
      store_some<A>(bench.dy + before + q, load_some<A>(from + q, known - q), known - q);
    __builtin_memcpy(bench.offsets + before, offsets + row * Q, size_t(known));
    for (int q = 0; q < steps; q += L) {
      Vec<A> phase[kStride];
#pragma GCC unroll 2
      for (int r = 0; r < kStride; r++) {
        phase[r] = Vec<A>{};
        for (int m = r < a.kernel ? (a.kernel - 1 - r) / kStride : -1; m >= 0; m--) {
          const auto won = load_integers<A>(taps + q - m) == integers<A>(r + m * kStride);
          phase[r] += only_where(won, load<A>(grads + q - m));
        }
      }
      A* const columns = bench.dx + q * kStride;
      if constexpr (kStride == 1) store<A>(columns, phase[0]);
      else store<A>(columns, zip<A, 0>(phase[0], phase[1])), store<A>(columns + L, zip<A, 1>(phase[0], phase[1]));
    }
    T* const to = dx + row * W;
    for (int w = 0; w < W; w += L) store_some<A>(to + w, load<A>(bench.dx + a.pad + w), W - w);
  }
}

template <class T>
void max_rows(const Axis& a, const T* dy, const uint8_t* offsets, T* dx, int64_t begin, int64_t end, char* scratch) {
  if (a.stride == 1) rows_of_stride<1>(a, dy, offsets, dx, begin, end, scratch);
  else rows_of_stride<2>(a, dy, offsets, dx, begin, end, scratch);
}

}  // namespace convlab::CONVLAB_ISA

CONVLAB_DEFINE(max_rows, max_rows)
