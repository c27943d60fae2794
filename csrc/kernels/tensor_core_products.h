// What the products of the tensor_core rung are made of: the element type in memory, what of it an instruction takes, and
// the instruction.
#pragma once
#include "device/device.h"
#include "device/mma.h"
#include "dtype.h"

namespace convlab {

struct Float16Products {
  using Element = float16;
  static constexpr bool kPromotes = false;
  template <int n> struct Fragment {
    uint32_t bits[n];
  };
  template <int n> static __device__ __forceinline__ Fragment<n> fragment(const uint32_t (&raw)[n], bool) {
    Fragment<n> f;
    for (int i = 0; i < n; i++) f.bits[i] = raw[i];
    return f;
  }
  static __device__ __forceinline__ void add(float (&d)[4], const Fragment<4>& a, const Fragment<2>& b) {
    mma_m16n8k16_f16(d, a.bits, b.bits, d);
  }
};

struct BFloat16Products : Float16Products {
  using Element = bfloat16;
  static __device__ __forceinline__ void add(float (&d)[4], const Fragment<4>& a, const Fragment<2>& b) {
    mma_m16n8k16_bf16(d, a.bits, b.bits, d);
  }
};

// float32 rounded to 11 bits
struct Tf32Products : Float16Products {
  using Element = float;
  template <int n> static __device__ __forceinline__ Fragment<n> fragment(const uint32_t (&raw)[n], bool rounded) {
    Fragment<n> f;
    for (int i = 0; i < n; i++) f.bits[i] = rounded ? raw[i] : to_tf32(__uint_as_float(raw[i]));
    return f;
  }
  static __device__ __forceinline__ void add(float (&d)[4], const Fragment<4>& a, const Fragment<2>& b) {
    mma_m16n8k8_tf32(d, a.bits, b.bits, d);
  }
};

// float32 as the sum of two such: x = big + small to 22 bits or more, and small x small is left out. The tensor cores
// truncate what they add to a sum, so a tile's products are summed by themselves and added in float32.
struct Tf32x3Products {
  using Element = float;
  static constexpr bool kPromotes = true;
  template <int n> struct Fragment {
    uint32_t big[n], small[n];
  };
  template <int n> static __device__ __forceinline__ Fragment<n> fragment(const uint32_t (&raw)[n], bool) {
    Fragment<n> f;
    for (int i = 0; i < n; i++) {
      const float x = __uint_as_float(raw[i]);
      f.big[i] = to_tf32(x);
      f.small[i] = to_tf32(x - __uint_as_float(f.big[i]));
    }
    return f;
  }
  static __device__ __forceinline__ void add(float (&d)[4], const Fragment<4>& a, const Fragment<2>& b) {
    mma_m16n8k8_tf32(d, a.small, b.big, d);
    mma_m16n8k8_tf32(d, a.big, b.small, d);
    mma_m16n8k8_tf32(d, a.big, b.big, d);
  }
};

}  // namespace convlab
