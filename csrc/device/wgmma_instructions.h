// wgmma.h for nvcc.
#pragma once
#include <type_traits>

#include "device/wgmma.h"

namespace convlab {

__device__ __forceinline__ uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }

__device__ __forceinline__ void warpgroup_sees_writes() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
__device__ __forceinline__ void warpgroup_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void warpgroup_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int pending> __device__ __forceinline__ void warpgroup_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}
template <int pending = 0, int n> __device__ __forceinline__ void warpgroup_wait_for(float (&sums)[n]) {
  warpgroup_wait<pending>();
#pragma unroll
  for (int i = 0; i < n; i++) asm volatile("" : "+f"(sums[i])::"memory");  // nobody reads them further up
}

// Ten registers' numbers, and ten registers; of the sums 32, 64 or 128
#define CONVLAB_NAMES(tens)                                                                                 \
  "%" #tens "0,%" #tens "1,%" #tens "2,%" #tens "3,%" #tens "4,%" #tens "5,%" #tens "6,%" #tens "7,%" #tens \
  "8,%" #tens "9,"
#define CONVLAB_SUMS2(i) "+f"(d[i]), "+f"(d[i + 1])
#define CONVLAB_SUMS8(i) CONVLAB_SUMS2(i), CONVLAB_SUMS2(i + 2), CONVLAB_SUMS2(i + 4), CONVLAB_SUMS2(i + 6)
#define CONVLAB_SUMS32(i) CONVLAB_SUMS8(i), CONVLAB_SUMS8(i + 8), CONVLAB_SUMS8(i + 16), CONVLAB_SUMS8(i + 24)
#define CONVLAB_NAMES30 CONVLAB_NAMES() CONVLAB_NAMES(1) CONVLAB_NAMES(2)
#define CONVLAB_NAMES60 CONVLAB_NAMES30 CONVLAB_NAMES(3) CONVLAB_NAMES(4) CONVLAB_NAMES(5)
#define CONVLAB_NAMES90 CONVLAB_NAMES60 CONVLAB_NAMES(6) CONVLAB_NAMES(7) CONVLAB_NAMES(8)
#define CONVLAB_NAMES120 CONVLAB_NAMES90 CONVLAB_NAMES(9) CONVLAB_NAMES(10) CONVLAB_NAMES(11)

// Operands behind the sums, where A lies in shared memory or in registers: their names from number i on, what they are, and,
// of 16 bits, that neither (of A in registers, B) is transposed
#define CONVLAB_SHARED_NAMES(i0, i1, i2, i3, i4) "%" #i0 ", %" #i1
#define CONVLAB_SHARED_OPERANDS "l"(a), "l"(b)
#define CONVLAB_SHARED_OF_16_BITS ", 0, 0"
#define CONVLAB_LINES_NAMES(i0, i1, i2, i3, i4) "%" #i0 ", %" #i1
#define CONVLAB_LINES_OPERANDS "l"(a), "l"(b)
#define CONVLAB_LINES_OF_16_BITS ", 1, 1"
#define CONVLAB_REGISTERS_NAMES(i0, i1, i2, i3, i4) "{%" #i0 ",%" #i1 ",%" #i2 ",%" #i3 "}, %" #i4
#define CONVLAB_REGISTERS_OPERANDS "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)
#define CONVLAB_REGISTERS_OF_16_BITS ", 0"

// scale: whether sums are added to, "1" or "0"; behind it, that no operand is negated (1, 1)
#define CONVLAB_WGMMA(where, shape, types, names, operands, scale, rest, ...)                                     \
  asm volatile("wgmma.mma_async.sync.aligned." shape types " {" names "}, " operands ", " scale ", 1, 1" rest ";" \
               : __VA_ARGS__                                                                                      \
               : CONVLAB_##where##_OPERANDS                                                                       \
               : "memory")
#define CONVLAB_WGMMA_OF(where, k, types, scale, rest)                                                               \
  if constexpr (sums == 32)                                                                                          \
    CONVLAB_WGMMA(where, "m64n64k" k, types, CONVLAB_NAMES30 "%30,%31", CONVLAB_##where##_NAMES(32, 33, 34, 35, 36), \
                  scale, rest, CONVLAB_SUMS32(0));                                                                   \
  else if constexpr (sums == 64)                                                                                     \
    CONVLAB_WGMMA(where, "m64n128k" k, types, CONVLAB_NAMES60 "%60,%61,%62,%63",                                     \
                  CONVLAB_##where##_NAMES(64, 65, 66, 67, 68), scale, rest, CONVLAB_SUMS32(0), CONVLAB_SUMS32(32));  \
  else if constexpr (sums == 96)                                                                                     \
    CONVLAB_WGMMA(where, "m64n192k" k, types, CONVLAB_NAMES90 "%90,%91,%92,%93,%94,%95",                             \
                  CONVLAB_##where##_NAMES(96, 97, 98, 99, 100), scale, rest, CONVLAB_SUMS32(0), CONVLAB_SUMS32(32),  \
                  CONVLAB_SUMS32(64));                                                                               \
  else                                                                                                               \
    CONVLAB_WGMMA(where, "m64n256k" k, types, CONVLAB_NAMES120 "%120,%121,%122,%123,%124,%125,%126,%127",            \
                  CONVLAB_##where##_NAMES(128, 129, 130, 131, 132), scale, rest, CONVLAB_SUMS32(0),                  \
                  CONVLAB_SUMS32(32), CONVLAB_SUMS32(64), CONVLAB_SUMS32(96))
#define CONVLAB_WGMMA_OF_ELEMENT(where, scale)                                            \
  static_assert(sums == 32 || sums == 64 || sums == 96 || sums == 128);                   \
  if constexpr (std::is_same_v<Element, float16>) {                                       \
    CONVLAB_WGMMA_OF(where, "16", ".f32.f16.f16", scale, CONVLAB_##where##_OF_16_BITS);   \
  } else if constexpr (std::is_same_v<Element, bfloat16>) {                               \
    CONVLAB_WGMMA_OF(where, "16", ".f32.bf16.bf16", scale, CONVLAB_##where##_OF_16_BITS); \
  } else {                                                                                \
    static_assert(std::is_same_v<Element, float>);                                        \
    CONVLAB_WGMMA_OF(where, "8", ".f32.tf32.tf32", scale, "");                            \
  }

template <class Element, bool kAdds = true, int sums>
__device__ __forceinline__ void wgmma(float (&d)[sums], MatrixDescriptor a, MatrixDescriptor b) {
  if constexpr (kAdds) {
    CONVLAB_WGMMA_OF_ELEMENT(SHARED, "1")
  } else {
    CONVLAB_WGMMA_OF_ELEMENT(SHARED, "0")
  }
}

template <class Element, bool kAdds = true, int sums>
__device__ __forceinline__ void wgmma(float (&d)[sums], const uint32_t (&a)[4], MatrixDescriptor b) {
  if constexpr (kAdds) {
    CONVLAB_WGMMA_OF_ELEMENT(REGISTERS, "1")
  } else {
    CONVLAB_WGMMA_OF_ELEMENT(REGISTERS, "0")
  }
}

template <class Element, int sums>
__device__ __forceinline__ void wgmma_lines(float (&d)[sums], MatrixDescriptor a, MatrixDescriptor b) {
  static_assert(sizeof(Element) == 2, "rows of TF32 do not lie side by side");
  CONVLAB_WGMMA_OF_ELEMENT(LINES, "1")
}

#undef CONVLAB_WGMMA_OF_ELEMENT
#undef CONVLAB_WGMMA_OF
#undef CONVLAB_WGMMA
#undef CONVLAB_LINES_OF_16_BITS
#undef CONVLAB_LINES_OPERANDS
#undef CONVLAB_LINES_NAMES
#undef CONVLAB_REGISTERS_OF_16_BITS
#undef CONVLAB_REGISTERS_OPERANDS
#undef CONVLAB_REGISTERS_NAMES
#undef CONVLAB_SHARED_OF_16_BITS
#undef CONVLAB_SHARED_OPERANDS
#undef CONVLAB_SHARED_NAMES
#undef CONVLAB_NAMES120
#undef CONVLAB_NAMES90
#undef CONVLAB_NAMES60
#undef CONVLAB_NAMES30
#undef CONVLAB_SUMS32
#undef CONVLAB_SUMS8
#undef CONVLAB_SUMS2
#undef CONVLAB_NAMES

}  // namespace convlab
