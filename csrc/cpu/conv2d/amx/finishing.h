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

  // Sums with their bias -> what is written, of one vector or of two
  CONVLAB_AMX CONVLAB_INLINE __m256i of(Vec<float> sums) const {
    const __m256i written = (__m256i)_mm512_cvtneps_pbh((__m512)sums);
    if (!activates) return written;
    Vec<float> v[1] = {load_half(reinterpret_cast<const bfloat16*>(&written))};  // as the layer alone has it
    activate<float>(ending, v);
    // The instruction takes subnormal numbers for zeros, and an activation, as the layer alone, does not
    __m256i bits;
    store_half(reinterpret_cast<bfloat16*>(&bits), v[0]);
    return bits;
  }
  CONVLAB_AMX CONVLAB_INLINE __m512i of(Vec<float> first, Vec<float> second) const {
    if (!activates) return (__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
    return (__m512i)__builtin_shufflevector(of(first), of(second), 0, 1, 2, 3, 4, 5, 6, 7);
  }
};

CONVLAB_INLINE void write(__m256i elements, int count, uint16_t* to) {
  CONVLAB_TOUCHES(to, count * sizeof(uint16_t));
  _mm256_mask_storeu_epi16(to, first_lanes(count), elements);
}

// Up to 32 elements of a row that are `step` apart
CONVLAB_INLINE void write_apart(__m512i elements, int count, uint16_t* to, int64_t step) {
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

}  // namespace convlab::CONVLAB_ISA::amx

#endif
