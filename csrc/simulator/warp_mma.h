// Tensor core operations on the host; csrc/device/mma.h says what they are. Sums are in float32 in the order of k: the
// hardware's order and truncation differ.
#pragma once
#include "dtype.h"
#include "simulator/runtime.h"

namespace convlab {

inline uint32_t to_tf32(float x) {
  const uint32_t bits = bits_of(x);
  if ((bits & 0x7f800000) == 0x7f800000)
    return (bits & 0xffffe000) | (bits & 0x1fff ? 0x400000 : 0);  // infinity and NaN
  return (bits + 0x1000) & 0xffffe000;
}

inline uint32_t pack_bf16(float low, float high) { return bfloat16(low).bits | uint32_t(bfloat16(high).bits) << 16; }
inline uint32_t pack_f16(float low, float high) { return float16(low).bits | uint32_t(float16(high).bits) << 16; }

namespace sim {

struct Mma {  // one lane's registers
  float* d;
  const uint32_t *a, *b;
  const float* c;
};
void mma_tf32(void** lanes, uint32_t mask);
void mma_bf16(void** lanes, uint32_t mask);
void mma_f16(void** lanes, uint32_t mask);

struct Ldmatrix {
  uint32_t* registers;
  const void* row;
  bool transposed;
};
void ldmatrix(void** lanes, uint32_t mask);

constexpr uint32_t kFullWarp = 0xffffffff;

}  // namespace sim

inline void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const float (&c)[4],
                             CONVLAB_SITE) {
  sim::Mma lane{d, a, b, c};
  sim::warp_collective("mma_m16n8k8_tf32", sim::mma_tf32, sim::kFullWarp, &lane, site);
}

inline void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const float (&c)[4],
                              CONVLAB_SITE) {
  sim::Mma lane{d, a, b, c};
  sim::warp_collective("mma_m16n8k16_bf16", sim::mma_bf16, sim::kFullWarp, &lane, site);
}

inline void mma_m16n8k16_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const float (&c)[4],
                             CONVLAB_SITE) {
  sim::Mma lane{d, a, b, c};
  sim::warp_collective("mma_m16n8k16_f16", sim::mma_f16, sim::kFullWarp, &lane, site);
}

inline void ldmatrix_x4(uint32_t (&r)[4], const void* row, CONVLAB_SITE) {
  sim::note_access(row, 16, sim::Access::read, site);
  sim::Ldmatrix lane{r, row, false};
  sim::warp_collective("ldmatrix_x4", sim::ldmatrix, sim::kFullWarp, &lane, site);
}

inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, CONVLAB_SITE) {
  sim::note_access(row, 16, sim::Access::read, site);
  sim::Ldmatrix lane{r, row, true};
  sim::warp_collective("ldmatrix_x4_trans", sim::ldmatrix, sim::kFullWarp, &lane, site);
}

}  // namespace convlab
