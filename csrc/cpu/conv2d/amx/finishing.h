// What sums become, and elements of the target.
#pragma once
#include "cpu/conv2d/amx/pairs.h"
#include "cpu/conv2d/block/ending.h"

#if defined(CONVLAB_HAS_AMX) && defined(__AVX512F__)

namespace convlab::CONVLAB_ISA::amx {

struct Finishing {
  const Ending& ending;
  bool activates;

  explicit Finishing(const Ending& ending) : ending(ending), activates(ending.activation != Activation::none) {}

  CONVLAB_INLINE Vec<float> activated(Vec<float> sums) const {
    Vec<float> v[1] = {sums};
    if (activates) activate<float>(ending, v);
    return v[0];
  }
  // Sums with their bias -> what is written, as bfloat16, of one vector or of two
  CONVLAB_AMX CONVLAB_INLINE __m256i rounded(Vec<float> sums) const {
    const __m256i written = (__m256i)_mm512_cvtneps_pbh((__m512)sums);
    if (!activates) return written;
    // The instruction takes subnormal numbers for zeros, and an activation, as the layer alone, does not
    __m256i bits;
    store_half(reinterpret_cast<bfloat16*>(&bits), activated(load_half(reinterpret_cast<const bfloat16*>(&written))));
    return bits;
  }
  CONVLAB_AMX CONVLAB_INLINE __m512i rounded(Vec<float> first, Vec<float> second) const {
    if (!activates) return (__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
    return (__m512i)__builtin_shufflevector(rounded(first), rounded(second), 0, 1, 2, 3, 4, 5, 6, 7);
  }
};

// The first `count` of a vector, or as many as it has, and of none nothing
CONVLAB_AMX CONVLAB_INLINE void write(const Finishing& f, Vec<float> sums, int count, uint16_t* to) {
  CONVLAB_TOUCHES(to, (count < 16 ? count : 16) * sizeof(uint16_t));
  _mm256_mask_storeu_epi16(to, first_lanes(count), f.rounded(sums));
}
CONVLAB_INLINE void write(const Finishing& f, Vec<float> sums, int count, float* to) {
  CONVLAB_TOUCHES(to, (count < 16 ? count : 16) * sizeof(float));
  _mm512_mask_storeu_ps(to, first_lanes(count), (__m512)f.activated(sums));
}

// Up to 32 elements of a row that are `step` apart
CONVLAB_AMX CONVLAB_INLINE void write_apart(__m512i elements, int count, uint16_t* to, int64_t step) {
  if (step == 1) return store_halves(to, count, elements);
  uint16_t all[32];
  _mm512_storeu_si512(all, elements);
  if (step != 2) {
    for (int m = 0; m < count; m++) to[m * step] = all[m];
    return;
  }
  CONVLAB_TOUCHES(to, (2 * count - 1) * sizeof(uint16_t));
  for (int m = 0; m < count; m += 16)
    _mm512_mask_storeu_epi16(to + 2 * m, first_halves(2 * (count - m)) & 0x55555555, load_some_bits(all + m, 16));
}
// Up to 16
CONVLAB_INLINE void write_apart(Vec<float> elements, int count, float* to, int64_t step) {
  if (step == 1) return _mm512_mask_storeu_ps(to, first_lanes(count), (__m512)elements);
  float all[16];
  store<float>(all, elements);
  for (int m = 0; m < count && m < 16; m++) to[m * step] = all[m];
}

}  // namespace convlab::CONVLAB_ISA::amx

#endif
