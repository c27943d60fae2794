// The element types of convlab, for host and device: float32, float64, and the two 16-bit floats, which are
// storage only: every kernel computes them in float32.
#pragma once
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace convlab {

enum class DType { float32, float64, float16, bfloat16 };

// Bytes of an element, and of what sums of such elements are kept in (acc_t, below)
constexpr int bytes_of(DType dtype) { return dtype == DType::float64 ? 8 : dtype == DType::float32 ? 4 : 2; }
constexpr int sum_bytes(DType dtype) { return dtype == DType::float64 ? 8 : 4; }
constexpr bool is_sum_type(DType dtype) { return bytes_of(dtype) == sum_bytes(dtype); }

#if defined(__CUDACC__)

using float16 = __half;
using bfloat16 = __nv_bfloat16;

#else

inline uint32_t bits_of(float f) {
  uint32_t u;
  std::memcpy(&u, &f, sizeof u);
  return u;
}

inline float float_of(uint32_t u) {
  float f;
  std::memcpy(&f, &u, sizeof f);
  return f;
}

// IEEE binary16: 1 sign, 5 exponent, 10 mantissa bits. Conversion rounds to nearest, ties to even.
struct float16 {
  uint16_t bits;

  float16() = default;
  explicit float16(float f) {
    const uint32_t u = bits_of(f), sign = u >> 16 & 0x8000, magnitude = u & 0x7fffffff;
    uint32_t h;
    if (magnitude > 0x7f800000) {
      h = 0x7e00;  // NaN
    } else if (magnitude >= 0x477ff000) {
      h = 0x7c00;  // 65520 and more round to infinity
    } else if (magnitude < 0x38800000) {
      // below the smallest normal half, halves are multiples of 2^-24, and so are the floats in [0.5, 1): let the adder
      // round
      h = bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f);
    } else {
      h = (magnitude + 0xfff + (magnitude >> 13 & 1) - (112u << 23)) >> 13;  // exponent bias 127 -> 15
    }
    bits = uint16_t(sign | h);
  }
  explicit operator float() const {
    const uint32_t sign = uint32_t(bits & 0x8000) << 16, magnitude = uint32_t(bits & 0x7fff) << 13;
    // the product moves the exponent bias from 15 to 127 and normalises subnormals
    const float f = magnitude >= 0x7c00u << 13 ? float_of(magnitude | 0x7f800000) : float_of(magnitude) * 0x1p112f;
    return float_of(bits_of(f) | sign);
  }
};

// The upper half of a float32. Conversion rounds to nearest, ties to even.
struct bfloat16 {
  uint16_t bits;

  bfloat16() = default;
  explicit bfloat16(float f) {
    const uint32_t u = bits_of(f);
    bits = uint16_t(f != f ? 0x7fc0 : (u + 0x7fff + (u >> 16 & 1)) >> 16);
  }
  explicit operator float() const { return float_of(uint32_t(bits) << 16); }
};

#endif

// What sums of T are kept in: float64 for float64, float32 for everything else.
template <class T> struct accumulator {
  using type = float;
};
template <> struct accumulator<double> {
  using type = double;
};
template <class T> using acc_t = typename accumulator<T>::type;

template <class T> struct type_tag {
  using type = T;
};

// Calls f(type_tag<T>{}) with the element type that `dtype` names.
template <class F> void dispatch(DType dtype, F&& f) {
  switch (dtype) {
    case DType::float32: return f(type_tag<float>{});
    case DType::float64: return f(type_tag<double>{});
    case DType::float16: return f(type_tag<float16>{});
    case DType::bfloat16: return f(type_tag<bfloat16>{});
  }
}

}  // namespace convlab
