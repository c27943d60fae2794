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
template <int n> __device__ __forceinline__ void warpgroup_wait_for(float (&sums)[n]) {
  warpgroup_wait<0>();
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
#define CONVLAB_NAMES120                                                                                \
  CONVLAB_NAMES60 CONVLAB_NAMES(6) CONVLAB_NAMES(7) CONVLAB_NAMES(8) CONVLAB_NAMES(9) CONVLAB_NAMES(10) \
      CONVLAB_NAMES(11)

// After the descriptors: sums are added to (1), and no operand is negated (1, 1); of 16 bits, nor transposed (0, 0).
#define CONVLAB_WGMMA(shape, types, names, descriptors, rest, ...)                                           \
  asm volatile("wgmma.mma_async.sync.aligned." shape types " {" names "}, " descriptors ", 1, 1, 1" rest ";" \
               : __VA_ARGS__                                                                                 \
               : "l"(a), "l"(b)                                                                              \
               : "memory")
#define CONVLAB_WGMMA_OF(n, k, types, rest)                                                                            \
  if constexpr (n == 64)                                                                                               \
    CONVLAB_WGMMA("m64n64k" k, types, CONVLAB_NAMES30 "%30,%31", "%32, %33", rest, CONVLAB_SUMS32(0));                 \
  else if constexpr (n == 128)                                                                                         \
    CONVLAB_WGMMA("m64n128k" k, types, CONVLAB_NAMES60 "%60,%61,%62,%63", "%64, %65", rest, CONVLAB_SUMS32(0),         \
                  CONVLAB_SUMS32(32));                                                                                 \
  else                                                                                                                 \
    CONVLAB_WGMMA("m64n256k" k, types, CONVLAB_NAMES120 "%120,%121,%122,%123,%124,%125,%126,%127", "%128, %129", rest, \
                  CONVLAB_SUMS32(0), CONVLAB_SUMS32(32), CONVLAB_SUMS32(64), CONVLAB_SUMS32(96))

template <class Element, int sums>
__device__ __forceinline__ void wgmma(float (&d)[sums], MatrixDescriptor a, MatrixDescriptor b) {
  static_assert(sums == 32 || sums == 64 || sums == 128);
  if constexpr (std::is_same_v<Element, float16>) {
    CONVLAB_WGMMA_OF(2 * sums, "16", ".f32.f16.f16", ", 0, 0");
  } else if constexpr (std::is_same_v<Element, bfloat16>) {
    CONVLAB_WGMMA_OF(2 * sums, "16", ".f32.bf16.bf16", ", 0, 0");
  } else {
    static_assert(std::is_same_v<Element, float>);
    CONVLAB_WGMMA_OF(2 * sums, "8", ".f32.tf32.tf32", "");
  }
}

#undef CONVLAB_WGMMA_OF
#undef CONVLAB_WGMMA
#undef CONVLAB_NAMES120
#undef CONVLAB_NAMES60
#undef CONVLAB_NAMES30
#undef CONVLAB_SUMS32
#undef CONVLAB_SUMS8
#undef CONVLAB_SUMS2
#undef CONVLAB_NAMES

}  // namespace convlab
