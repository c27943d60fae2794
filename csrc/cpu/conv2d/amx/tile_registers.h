// AMX: eight registers that hold tiles of up to 16 rows of 64 bytes. An instruction multiplies a tile of 16 x 32 bfloat16
// with one of 32 x 16, which holds pairs of rows side by side, and adds to a tile of 16 x 16 floats: 8,192 multiply-adds
// in 16 cycles. [Intel, Architecture Instruction Set Extensions Programming Reference, chapter 3]
//
// Registers 0 to 3 are sums, 4 and 5 what rows they have, 6 and 7 what columns.
#pragma once
#include "cpu/conv2d/amx/amx.h"
#include "cpu/simd/vec.h"

#if defined(CONVLAB_HAS_AMX) && defined(__AVX512F__)

#define CONVLAB_AMX [[gnu::target("amx-tile,amx-bf16,avx512bf16")]]

namespace convlab::CONVLAB_ISA::amx {

using namespace convlab::amx;

constexpr int kRowBytes = 64;  // of a tile

struct Shapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  // Tiles of `first` and `second` rows, `depth` elements each, and of so many columns
  Shapes(int first, int second, int depth, int columns = kColumns) {
    for (int i = 0; i < 8; i++) {
      const bool sums = i < 4, pairs = i >= 6, lower = sums ? i >= 2 : i == 5;
      rows[i] = uint8_t(pairs ? depth / 2 : lower ? second : first);
      row_bytes[i] = uint16_t(sums || pairs ? columns * 4 : depth * 2);
    }
  }
};

CONVLAB_AMX CONVLAB_INLINE void shape(const Shapes& shapes) {
  asm volatile("" : : : "memory");  // the instructions do not say what they read: it has to be in memory from here on
  _tile_loadconfig(&shapes);
}

CONVLAB_AMX CONVLAB_INLINE void clear_sums() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

// Two tiles of rows, `row` bytes from row to row, or the upper one alone, times two of columns, the second `next` bytes behind
// the first, or that alone; `pair` bytes from a row of their pairs to the next
template <bool two, bool right>
CONVLAB_AMX CONVLAB_INLINE void step(const char* upper, const char* lower, int64_t row, const char* columns,
                                     int64_t next, int64_t pair = kRowBytes) {
  _tile_loadd(6, columns, pair);
  _tile_loadd(4, upper, row);
  _tile_dpbf16ps(0, 4, 6);
  if (right) {
    _tile_loadd(7, columns + next, pair);
    _tile_dpbf16ps(1, 4, 7);
  }
  if (two) {
    _tile_loadd(5, lower, row);
    _tile_dpbf16ps(2, 5, 6);
    if (right) _tile_dpbf16ps(3, 5, 7);
  }
}

// The step's sums: `row` bytes from row to row, those of the lower tile and of the right one so many floats further
template <bool two, bool right>
CONVLAB_AMX CONVLAB_INLINE void store_sums(float* sums, int64_t row, int64_t lower, int64_t next) {
  _tile_stored(0, sums, row);
  if (right) _tile_stored(1, sums + next, row);
  if (two) _tile_stored(2, sums + lower, row);
  if (two && right) _tile_stored(3, sums + lower + next, row);
}

}  // namespace convlab::CONVLAB_ISA::amx

#endif
