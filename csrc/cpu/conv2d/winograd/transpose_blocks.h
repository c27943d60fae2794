// Transposition of whole blocks, L x L in registers: how NCHW tensors and filters get into panels, and back. What is
// less than a block goes the general way (cpu/simd/transpose.h).
#pragma once
#include "cpu/simd/transpose.h"

namespace convlab::CONVLAB_ISA::winograd {

using Floats = Vec<float>;
constexpr int kWidth = kLanes<float>;

// A shuffle: lane l of the result is lane from(l) of a, b
template <class From, int... L> CONVLAB_INLINE Floats shuffle(Floats a, Floats b, From, indices<L...>) {
#if __has_builtin(__builtin_shufflevector)
  return __builtin_shufflevector(a, b, From()(L)...);
#else
  return __builtin_shuffle(a, b, decltype(a < b){From()(L)...});
#endif
}
template <class From> CONVLAB_INLINE Floats shuffle(Floats a, Floats b, From from) {
  return shuffle(a, b, from, indices_to<kWidth>());
}

// Quads of lanes, `step` lanes to rows[i][j] <-> rows[j][i]
template <int step> CONVLAB_INLINE void exchange_quads(Floats (&rows)[kWidth]) {
  if constexpr (step < kWidth) {
#pragma GCC unroll 16
    for (int i = 0; i < kWidth; i++) {
      if (i & step) continue;
      const Floats a = rows[i], b = rows[i + step];
      rows[i] = shuffle(a, b, [](int l) { return l & step ? l - step + kWidth : l; });
      rows[i + step] = shuffle(a, b, [](int l) { return l & step ? l + kWidth : l + step; });
    }
    exchange_quads<2 * step>(rows);
  }
}

// rows[i][j] <-> rows[j][i]. A quad of lanes is 16 bytes, which AVX2's instructions prefer not to leave: first the
// quads of four rows are transposed where they are, then they change places.
CONVLAB_INLINE void transpose_block(Floats (&rows)[kWidth]) {
#pragma GCC unroll 4
  for (int q = 0; q < kWidth; q += 4) {
    Floats pairs[4];
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
      const Floats a = rows[q + 2 * i], b = rows[q + 2 * i + 1];
      pairs[i] = shuffle(a, b, [](int l) { return l / 4 * 4 + l % 4 / 2 + l % 2 * kWidth; });
      pairs[2 + i] = shuffle(a, b, [](int l) { return l / 4 * 4 + 2 + l % 4 / 2 + l % 2 * kWidth; });
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
      const Floats a = pairs[2 * i], b = pairs[2 * i + 1];
      rows[q + 2 * i] = shuffle(a, b, [](int l) { return l / 4 * 4 + l % 2 + l % 4 / 2 * kWidth; });
      rows[q + 2 * i + 1] = shuffle(a, b, [](int l) { return l / 4 * 4 + 2 + l % 2 + l % 4 / 2 * kWidth; });
    }
  }
  exchange_quads<4>(rows);
}

// from [rows, columns], rows `stride` apart -> panel [columns, rows], columns kBlock apart, as transpose_in does it
template <int panel_stride>
void take_transposed(const float* from, int64_t stride, int rows, int columns, float* panel) {
  if (rows % kWidth || columns < kWidth) return transpose_in(from, stride, rows, columns, panel, panel_stride);
  for (int j = 0; j < columns; j += kWidth) {
    if (j + kWidth > columns) j = columns - kWidth;  // the last block again covers part of the one before
    for (int i = 0; i < rows; i += kWidth) {
      Floats block[kWidth];
#pragma GCC unroll 16
      for (int l = 0; l < kWidth; l++) {
        const float* const row = from + (i + l) * stride + j;
        block[l] = load<float>(row);
        __builtin_prefetch(row + kPrefetched);
      }
      transpose_block(block);
#pragma GCC unroll 16
      for (int l = 0; l < kWidth; l++) store<float>(panel + (j + l) * panel_stride + i, block[l]);
    }
  }
}

// panel [rows, L], rows panel_stride apart -> to [columns, rows], `stride` apart, as transpose_out does it
template <int panel_stride> void give_transposed(const float* panel, int rows, int columns, float* to, int64_t stride) {
  if (columns < kWidth || rows < kWidth) return transpose_out(panel, panel_stride, rows, columns, to, stride);
  for (int i = 0; i < rows; i += kWidth) {
    if (i + kWidth > rows) i = rows - kWidth;
    Floats block[kWidth];
#pragma GCC unroll 16
    for (int l = 0; l < kWidth; l++) block[l] = load<float>(panel + (i + l) * panel_stride);
    transpose_block(block);
#pragma GCC unroll 16
    for (int l = 0; l < kWidth; l++) {
      store<float>(to + l * stride + i, block[l]);
      __builtin_prefetch(to + l * stride + i + kPrefetched, 1);
    }
  }
}

}  // namespace convlab::CONVLAB_ISA::winograd
