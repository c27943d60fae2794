// Transposition of whole blocks, L x L in registers: how NCHW tensors and filters get into panels, and back. What is
// less than a block goes the general way (cpu/simd/transpose.h).
#pragma once
#include "cpu/simd/transpose.h"

namespace convlab::CONVLAB_ISA::winograd {

using Floats = Vec<float>;
constexpr int kWidth = kLanes<float>;

// from [rows, columns], rows `stride` apart -> panel [columns, rows], columns kBlock apart, as transpose_in does it
template <int panel_stride>
void take_transposed(const float* from, int64_t stride, int rows, int columns, float* panel) {
  if (rows % kWidth || columns < kWidth) return transpose_in(from, stride, rows, columns, panel, panel_stride);
  for (int j = 0; j < columns; j += kWidth) {
    if (j + kWidth > columns) j = columns - kWidth;  // the last block again covers part of the one before
    for (int i = 0; i < rows; i += kWidth) {
      Floats block[kWidth];
#pragma GCC unroll 16
      for (int l = 0; l < kWidth; l++) block[l] = load<float>(from + (i + l) * stride + j);
      transpose<float>(block);
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
    transpose<float>(block);
#pragma GCC unroll 16
    for (int l = 0; l < kWidth; l++) {
      store<float>(to + l * stride + i, block[l]);
      __builtin_prefetch(to + l * stride + i + kPrefetched, 1);
    }
  }
}

}  // namespace convlab::CONVLAB_ISA::winograd
