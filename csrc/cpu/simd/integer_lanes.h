// Integers beside the lanes of a vector: in registers one as wide as each lane, in memory bytes or 32 bits each.
#pragma once
#include "cpu/simd/vec.h"

namespace convlab::CONVLAB_ISA {

template <class A> using Integer = std::conditional_t<sizeof(A) == 8, int64_t, int32_t>;
template <class A> using Integers = Vec<Integer<A>>;

template <class A> CONVLAB_INLINE Integers<A> integers(int value) { return Integer<A>(value) - Integers<A>{}; }

// Lane l of the result is lane from[l] of v
template <class A> CONVLAB_INLINE Vec<A> permuted(Vec<A> v, Integers<A> from) {
#if defined(__AVX512F__)
  if constexpr (sizeof(A) == 4) return (Vec<A>)_mm512_maskz_permutexvar_ps(__mmask16(-1), (__m512i)from, (__m512)v);
  else return (Vec<A>)_mm512_maskz_permutexvar_pd(__mmask8(-1), (__m512i)from, (__m512d)v);
#else
#if defined(__AVX2__)
  if constexpr (sizeof(A) == 4) return (Vec<A>)_mm256_permutevar8x32_ps((__m256)v, (__m256i)from);
#endif
  Vec<A> lanes{};
#pragma GCC unroll 8
  for (int l = 0; l < kLanes<A>; l++) lanes[l] = v[from[l]];
  return lanes;
#endif
}

// As many M in memory as a vector has lanes of A
template <class A, class M> struct beside {
  typedef M type __attribute__((vector_size(sizeof(M) * kLanes<A>)));
  typedef M in_memory __attribute__((vector_size(sizeof(M) * kLanes<A>), aligned(alignof(M)), may_alias));
};

// Bytes are widened by zipping them with zeros, and narrowed by undoing that, because compilers take them for
// __builtin_convertvector one at a time unless the machine has an instruction for the whole.
template <class A, class M> CONVLAB_INLINE Integers<A> load_integers(const M* p) {
  if constexpr (sizeof(M) == sizeof(A)) return load<Integer<A>>(p);
  else if constexpr (sizeof(M) != 1)
    return __builtin_convertvector(*reinterpret_cast<const typename beside<A, M>::in_memory*>(p), Integers<A>);
#if defined(__AVX512F__)
  else if constexpr (sizeof(A) == 4)
    return (Integers<A>)_mm512_maskz_cvtepu8_epi32(0xffff, _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#elif defined(__AVX2__)
  else if constexpr (sizeof(A) == 4)
    return (Integers<A>)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
#endif
  else {
    uint64_t bytes = 0;
    __builtin_memcpy(&bytes, p, kLanes<A>);
    Vec<uint8_t> v = (Vec<uint8_t>)Vec<uint64_t>{bytes};
#pragma GCC unroll 3
    for (int width = 1; width < int(sizeof(A)); width *= 2) v = zip<uint8_t, 0>(v, Vec<uint8_t>{});
    return (Integers<A>)v;
  }
}

template <class A, class M> CONVLAB_INLINE void store_integers(M* p, Integers<A> v) {
  if constexpr (sizeof(M) == sizeof(A)) store<Integer<A>>(p, v);
#if defined(__AVX512F__)
  else if constexpr (sizeof(A) == 4)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)v));
#elif defined(__AVX2__)
  else if constexpr (sizeof(M) == 1 && sizeof(A) == 4) {
    const __m256i bytes = _mm256_shuffle_epi8((__m256i)v, _mm256_set1_epi32(0x0c080400));  // of each half, in its first
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p),
                     _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1)));
  }
#endif
  else if constexpr (sizeof(M) != 1 || kVectorBytes == 64)
    *reinterpret_cast<typename beside<A, M>::in_memory*>(p) = __builtin_convertvector(v, typename beside<A, M>::type);
  else {
    Vec<uint8_t> bytes = (Vec<uint8_t>)v;
#pragma GCC unroll 3
    for (int width = 1; width < int(sizeof(A)); width *= 2) bytes = unzip<uint8_t, 0>(bytes, Vec<uint8_t>{});
    __builtin_memcpy(p, &bytes, kLanes<A>);
  }
}

// The first `count` lanes, as load_some and store_some have them
template <class A, class M> CONVLAB_INLINE Integers<A> load_some_integers(const M* p, int count) {
  if (count >= kLanes<A>) return load_integers<A>(p);
#if defined(__AVX512F__)
  if constexpr (sizeof(M) == 1 && sizeof(A) == 4) {  // a load of what was just stored in parts would wait
    CONVLAB_TOUCHES(p, count);
    return (Integers<A>)_mm512_maskz_cvtepu8_epi32(0xffff, _mm_maskz_loadu_epi8(__mmask16((1u << count) - 1), p));
  }
#endif
  M lanes[kLanes<A>] = {};
  copy_some<kLanes<A>>(p, count, lanes);
  return load_integers<A>(lanes);
}
template <class A, class M> CONVLAB_INLINE void store_some_integers(M* p, Integers<A> v, int count) {
  if (count >= kLanes<A>) return store_integers<A>(p, v);
#if defined(__AVX512F__)
  if constexpr (sizeof(M) == 1 && sizeof(A) == 4) {
    CONVLAB_TOUCHES(p, count);
    return _mm_mask_storeu_epi8(p, __mmask16((1u << count) - 1), _mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)v));
  }
#endif
  M lanes[kLanes<A>];
  store_integers<A>(lanes, v);
  copy_some<kLanes<A>>(lanes, count, p);
}

}  // namespace convlab::CONVLAB_ISA
