// Elements of 16 bits that change places two at a time: planes into pixels, and pixels into planes.
#pragma once
#include "cpu/conv2d/amx/tile_registers.h"

#if defined(CONVLAB_HAS_AMX) && defined(__AVX512F__)

namespace convlab::CONVLAB_ISA::amx {

using HalfIndices [[gnu::vector_size(64)]] = uint16_t;

CONVLAB_INLINE __mmask16 first_lanes(int count) {
  return __mmask16(count >= 16 ? 0xffff : count <= 0 ? 0 : (1u << count) - 1);
}

// Up to 16 elements that `inside` has, in lanes of 32 bits; floats are rounded to bfloat16 here and wherever a panel is made
CONVLAB_AMX CONVLAB_INLINE __m512i load_bits(const uint16_t* p, __mmask16 inside) {
  return _mm512_maskz_cvtepu16_epi32(0xffff, _mm256_maskz_loadu_epi16(inside, p));
}
CONVLAB_AMX CONVLAB_INLINE __m512i rounded_bits(__m512 v) {
  return _mm512_maskz_cvtepu16_epi32(0xffff, (__m256i)_mm512_cvtneps_pbh(v));
}
CONVLAB_AMX CONVLAB_INLINE __m512i load_bits(const float* p, __mmask16 inside) {
  return rounded_bits(_mm512_maskz_loadu_ps(inside, p));
}
template <class T> CONVLAB_AMX CONVLAB_INLINE __m512i load_some_bits(const T* p, int count) {
  CONVLAB_TOUCHES(p, count * sizeof(T));
  return load_bits(p, first_lanes(count));
}

// The first elements of 32, as far as there are `count`; any number, and of none they are zeros, or nothing is written
CONVLAB_INLINE int of_halves(int count) { return count < 0 ? 0 : count < 32 ? count : 32; }
CONVLAB_INLINE __mmask32 first_halves(int count) { return __mmask32((uint64_t(1) << of_halves(count)) - 1); }
CONVLAB_AMX CONVLAB_INLINE __m512i load_halves(const uint16_t* p, int count) {
  CONVLAB_TOUCHES(p, of_halves(count) * sizeof(uint16_t));
  return _mm512_maskz_loadu_epi16(first_halves(count), p);
}
CONVLAB_AMX CONVLAB_INLINE __m512i load_halves(const float* p, int count) {
  CONVLAB_TOUCHES(p, of_halves(count) * sizeof(float));
  return (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(first_lanes(count - 16), p + 16),
                                      _mm512_maskz_loadu_ps(first_lanes(count), p));
}
CONVLAB_INLINE void store_halves(uint16_t* p, int count, __m512i v) {
  CONVLAB_TOUCHES(p, of_halves(count) * sizeof(uint16_t));
  _mm512_mask_storeu_epi16(p, first_halves(count), v);
}
template <class T> CONVLAB_AMX CONVLAB_INLINE void copy_halves(const T* from, int count, uint16_t* to) {
  for (int i = 0; i < count; i += 32) store_halves(to + i, count - i, load_halves(from + i, count - i));
}
template <class T> CONVLAB_AMX CONVLAB_INLINE uint16_t bits_of(const T* p) {
  return uint16_t(((FloatBits)load_bits(p, 1))[0]);
}

// Elements 0, 2, ... 30 of those that `inside` has, in lanes of 32 bits
CONVLAB_AMX CONVLAB_INLINE __m512i load_every_second(const uint16_t* p, __mmask32 inside) {
  return _mm512_maskz_loadu_epi16(inside, p);
}
CONVLAB_AMX CONVLAB_INLINE __m512i load_every_second(const float* p, __mmask32 inside) {
  const Vec<float> first = (Vec<float>)_mm512_maskz_loadu_ps(__mmask16(inside), p),
                   second = (Vec<float>)_mm512_maskz_loadu_ps(__mmask16(inside >> 16), p + 16);
  return rounded_bits(
      (__m512)__builtin_shufflevector(first, second, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30));
}

// Two rows of `count` elements: an element of each in a lane. second may be null, and then is zeros.
template <class T> CONVLAB_AMX CONVLAB_INLINE Vec<float> load_pairs(const T* first, const T* second, int count) {
  const __m512i low = load_some_bits(first, count);
  if (!second) return (Vec<float>)low;
  return (Vec<float>)_mm512_or_si512(low, _mm512_maskz_slli_epi32(0xffff, load_some_bits(second, count), 16));
}

// from [rows, columns], rows `stride` apart -> to [columns, rows], `to_stride` apart, with zeros up to `padded` rows: even
template <class T>
CONVLAB_AMX [[gnu::noinline]] void turn(const T* from, int64_t stride, int rows, int columns, uint16_t* to,
                                        int64_t to_stride, int padded) {
  for (int j = 0; j < columns; j += 16)
    for (int i = 0; i < padded; i += 32) {
      const int count = columns - j < 16 ? columns - j : 16, pairs = padded - i < 32 ? (padded - i) / 2 : 16;
      Vec<float> block[16];
#pragma GCC unroll 16
      for (int l = 0; l < 16; l++) {
        const int row = i + 2 * l;
        const T* const at = from + row * stride + j;
        block[l] = row < rows ? load_pairs(at, row + 1 < rows ? at + stride : nullptr, count) : Vec<float>{};
      }
      transpose<float>(block);
#pragma GCC unroll 16
      for (int l = 0; l < 16; l++)
        if (l < count) store_halves(to + (j + l) * to_stride + i, 2 * pairs, (__m512i)block[l]);
    }
}

// from [rows, columns], rows `stride` apart -> to [padded rows / 2, 16, 2], for up to 16 columns, with zeros
template <class T>
CONVLAB_AMX [[gnu::noinline]] void pair_up(const T* from, int64_t stride, int rows, int columns, uint16_t* to,
                                           int padded) {
  for (int i = 0; i < padded; i += 2, from += 2 * stride, to += 32) {
    const Vec<float> both = i < rows ? load_pairs(from, i + 1 < rows ? from + stride : nullptr, columns) : Vec<float>{};
    store<float>(reinterpret_cast<float*>(to), both);
  }
}

// from [rows, columns], up to 16 rows `stride` apart -> to [padded columns / 2, 16, 2], with zeros
template <class T>
CONVLAB_AMX [[gnu::noinline]] void turn_pairs(const T* from, int64_t stride, int rows, int columns, uint16_t* to,
                                              int padded) {
  for (int j = 0; j < padded; j += 32) {
    Vec<float> block[16];
#pragma GCC unroll 16
    for (int l = 0; l < 16; l++)
      block[l] = l < rows ? (Vec<float>)load_halves(from + l * stride + j, columns - j) : Vec<float>{};
    transpose<float>(block);
#pragma GCC unroll 16
    for (int l = 0; l < 16; l++, to += 32)
      if (j + 2 * l < padded) store<float>(reinterpret_cast<float*>(to), block[l]);
  }
}

// from [pixels, channels] -> to [pixels, padded], with zeros; padded up to 32. As many pixels at a time as a vector has.
template <class T>
CONVLAB_AMX [[gnu::noinline]] void widen(const T* from, int pixels, int channels, uint16_t* to, int padded) {
  const int at_once = 32 / padded;
  uint16_t from_lane[32] = {};
  uint32_t real = 0;
  for (int i = 0; i < at_once * padded; i++)
    if (i % padded < channels) from_lane[i] = uint16_t(i / padded * channels + i % padded), real |= 1u << i;
  const __m512i lanes = _mm512_loadu_si512(from_lane);
  for (int i = 0; i < pixels; i += at_once) {
    const int count = pixels - i < at_once ? pixels - i : at_once;
    const __m512i some = load_halves(from + i * channels, count * channels);
    store_halves(to + i * padded, count * padded, _mm512_maskz_permutexvar_epi16(real, lanes, some));
  }
}

template <class T> CONVLAB_INLINE void clear(T* to, int64_t count) {
  if (count > 0) __builtin_memset(to, 0, size_t(count) * sizeof(T));
}
CONVLAB_INLINE int least_of(int a, int b) { return a < b ? a : b; }

}  // namespace convlab::CONVLAB_ISA::amx

#endif
