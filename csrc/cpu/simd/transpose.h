// Copies that transpose a matrix, block by block in registers, and convert between memory's type and the sums': how
// NCHW tensors get into panels with the channels innermost, and back.
#pragma once
#include "cpu/conv2d/product.h"
#include "cpu/simd/vec.h"

namespace convlab::CONVLAB_ISA {

constexpr int kPrefetched = 32;  // elements ahead: there are too many rows for the hardware to follow
constexpr int kPages = 64;  // rows at a time, each in a page of its own: a core keeps the addresses of so many at hand

// Of `reach` elements, up to two vectors, the even (which = 0) or the odd ones
template <class A, int which, class T> CONVLAB_INLINE Vec<A> load_every_second(const T* from, int reach) {
  return unzip<A, which>(load_some<A>(from, reach),
                         reach > kLanes<A> ? load_some<A>(from + kLanes<A>, reach - kLanes<A>) : Vec<A>{});
}

// `count` elements that lie 1 or 2 apart, from the first on
template <int apart, class A, class T> CONVLAB_INLINE Vec<A> load_apart(const T* from, int count) {
  if constexpr (apart == 1) return load_some<A>(from, count);
  return load_every_second<A, 0>(from, 2 * (count < kLanes<A> ? count : kLanes<A>)-1);
}

// A block of up to L x L, or of exactly so many, as transpose_in has it. No line is asked for beforehand: the loads of a block
// wait for memory together, and asking for those of later blocks made it take a third longer. Out of line, for the
// compiler's sake.
template <bool full, int apart, class A, class T>
[[gnu::noinline]] void transpose_block(const T* from, int64_t from_stride, int rows, int columns, A* panel,
                                       int64_t panel_stride) {
  constexpr int L = kLanes<A>;
  Vec<A> block[L];
#pragma GCC unroll 16
  for (int l = 0; l < L; l++)
    block[l] = full || l < rows ? load_apart<apart, A>(from + l * from_stride, full ? L : columns) : Vec<A>{};
  transpose<A>(block);
#pragma GCC unroll 16
  for (int l = 0; l < L; l++, panel += panel_stride)
    if (full || l < columns) store<A>(panel, block[l]), keep(panel);
}

// from [rows, columns], columns 1 or 2 elements apart and rows `from_stride` -> panel [columns, rows], `panel_stride`
// >= rows apart. Writes up to a vector past the panel's end, and nothing behind the columns before it has written
// these.
template <int apart = 1, class A, class T>
[[gnu::noinline]] void transpose_in(const T* from, int64_t from_stride, int rows, int columns, A* panel,
                                    int64_t panel_stride) {
  constexpr int L = kLanes<A>;
  // backwards: what a block of few rows writes too much is overwritten
  for (int end = rows, begin; end > 0; end = begin) {
    begin = (end - 1) / kPages * kPages;
    for (int j = 0; j < columns; j += L) {
      if (j + L > columns && columns > L) j = columns - L;  // the last block again covers part of the one before
      for (int i = (end - 1) / L * L; i >= begin; i -= L) {
        const bool full = rows - i >= L && columns - j >= L;
        const auto block = full ? &transpose_block<true, apart, A, T> : &transpose_block<false, apart, A, T>;
        block(from + i * from_stride + j * apart, from_stride, rows - i, columns - j, panel + j * panel_stride + i,
              panel_stride);
      }
    }
  }
}

// panel [rows, L], rows `panel_stride` apart -> to [columns, rows], `to_stride` apart, for the first `columns` <= L
template <class A, class T>
[[gnu::noinline]] void transpose_out(const A* panel, int64_t panel_stride, int rows, int columns, T* to,
                                     int64_t to_stride) {
  constexpr int L = kLanes<A>;
  if (rows < L) {
    for (int i = 0; i < rows; i++)
      for (int j = 0; j < columns; j++) to[j * to_stride + i] = T(panel[i * panel_stride + j]);
    return;
  }
  for (int i = 0; i < rows; i += L) {
    if (i + L > rows) i = rows - L;
    Vec<A> block[L];
#pragma GCC unroll 16
    for (int l = 0; l < L; l++) block[l] = load<A>(panel + (i + l) * panel_stride);
    transpose<A>(block);
#pragma GCC unroll 16
    for (int l = 0; l < L; l++)
      if (l < columns) {
        store_as<A>(to + l * to_stride + i, block[l]);
        __builtin_prefetch(to + l * to_stride + i + kPrefetched, 1);
      }
  }
}

// panel [rows <= L, columns <= L], rows `panel_stride` apart -> to [columns, rows], `to_stride` apart
template <class A, class T>
void transpose_some(const A* panel, int64_t panel_stride, int rows, int columns, T* to, int64_t to_stride) {
  constexpr int L = kLanes<A>;
  Vec<A> block[L];
  for (int l = 0; l < L; l++) block[l] = l < rows ? load<A>(panel + l * panel_stride) : Vec<A>{};
  transpose<A>(block);
  for (int l = 0; l < columns; l++) store_some<A>(to + l * to_stride, block[l], rows);
}

// from [rows, columns, channels] of an image -> panel [rows, columns, channels], pixels `panel_stride` apart. Writes up to
// a vector past the panel's end.
template <class A, class T>
void take_in(const T* from, const Strides& strides, int rows, int columns, int channels, A* panel,
             int64_t panel_stride) {
  if (strides.w == 1 && strides.h == columns)
    return transpose_in(from, strides.c, channels, rows * columns, panel, panel_stride);
  for (int row = 0; row < rows; row++, from += strides.h, panel += columns * panel_stride) {
    if (strides.w == 1) transpose_in(from, strides.c, channels, columns, panel, panel_stride);
    else if (strides.w == 2) transpose_in<2>(from, strides.c, channels, columns, panel, panel_stride);
    else if (strides.c == 1)
      for (int j = 0; j < columns; j++)
        for (int c = 0; c < channels; c += kLanes<A>)
          store<A>(panel + j * panel_stride + c, load_some<A>(from + j * strides.w + c, channels - c));
    else
      for (int j = 0; j < columns; j++)
        for (int c = 0; c < channels; c++) panel[j * panel_stride + c] = A(from[j * strides.w + c * strides.c]);
  }
}

// panel [rows, columns, >= channels] -> target
template <class A, class T>
void give_back(const A* panel, int64_t panel_stride, int rows, int columns, int channels, T* target,
               const Strides& strides) {
  if (strides.h == columns && strides.w == 1)
    return transpose_out(panel, panel_stride, rows * columns, channels, target, strides.c);
  for (int row = 0; row < rows; row++, panel += columns * panel_stride, target += strides.h) {
    if (strides.w == 1) transpose_out(panel, panel_stride, columns, channels, target, strides.c);
    else
      for (int j = 0; j < columns; j++)
        for (int c = 0; c < channels; c++) target[j * strides.w + c * strides.c] = T(panel[j * panel_stride + c]);
  }
}

}  // namespace convlab::CONVLAB_ISA
