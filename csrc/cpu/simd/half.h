// Vectors of float16 and bfloat16 in memory, of floats in registers; included by simd.h. Rounds to nearest even, as
// dtype.h does.
#pragma once
namespace convlab::CONVLAB_ISA {

typedef uint16_t HalfBits __attribute__((vector_size(kVectorBytes / 2)));
typedef HalfBits HalfBitsInMemory __attribute__((aligned(2), may_alias));
using FloatBits = Vec<uint32_t>;

CONVLAB_INLINE FloatBits load_bits(const void* p) {
  return __builtin_convertvector(*static_cast<const HalfBitsInMemory*>(p), FloatBits);
}
CONVLAB_INLINE void store_bits(void* p, FloatBits bits) {
  *static_cast<HalfBitsInMemory*>(p) = __builtin_convertvector(bits, HalfBits);
}

CONVLAB_INLINE Vec<float> load_half(const bfloat16* p) { return (Vec<float>)(load_bits(p) << 16); }

CONVLAB_INLINE void store_half(bfloat16* p, Vec<float> v) {
  const FloatBits bits = (FloatBits)v, rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  store_bits(p, v != v ? FloatBits{} + 0x7fc0 : rounded);
}

#if defined(__AVX512F__)  // the forms with a mask: gcc 12 warns of its own text of the others

CONVLAB_INLINE Vec<float> load_half(const float16* p) {
  return (Vec<float>)_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
CONVLAB_INLINE void store_half(float16* p, Vec<float> v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_maskz_cvtps_ph(0xffff, (__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

#elif defined(__F16C__)

CONVLAB_INLINE Vec<float> load_half(const float16* p) {
  return (Vec<float>)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
CONVLAB_INLINE void store_half(float16* p, Vec<float> v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

#else  // float16 of dtype.h, lane by lane the same

CONVLAB_INLINE Vec<float> load_half(const float16* p) {
  const FloatBits bits = load_bits(p), sign = (bits & 0x8000) << 16, magnitude = (bits & 0x7fff) << 13;
  const FloatBits finite = (FloatBits)((Vec<float>)magnitude * 0x1p112f);
  return (Vec<float>)((magnitude >= 0x7c00u << 13 ? magnitude | 0x7f800000 : finite) | sign);
}

CONVLAB_INLINE void store_half(float16* p, Vec<float> v) {
  const FloatBits bits = (FloatBits)v, sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  const FloatBits normal = (magnitude + 0xfff + (magnitude >> 13 & 1) - (112u << 23)) >> 13;
  const FloatBits small = (FloatBits)((Vec<float>)magnitude + 0.5f) - 0x3f000000;  // the bits of 0.5f
  FloatBits half = magnitude < 0x38800000 ? small : normal;
  half = magnitude >= 0x477ff000 ? FloatBits{} + 0x7c00 : half;
  store_bits(p, (magnitude > 0x7f800000 ? FloatBits{} + 0x7e00 : half) | sign);
}

#endif

}  // namespace convlab::CONVLAB_ISA
