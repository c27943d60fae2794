// wgmma.h on the host: a thread computes its own sums.
#pragma once
#include "simulator/runtime.h"

namespace convlab {
namespace sim {

float multiply_float16(float sum, const void* a, const void* b);
float multiply_bfloat16(float sum, const void* a, const void* b);
float multiply_tf32(float sum, const void* a, const void* b);

constexpr MultiplyRow multiply_of(float16) { return multiply_float16; }
constexpr MultiplyRow multiply_of(bfloat16) { return multiply_bfloat16; }
constexpr MultiplyRow multiply_of(float) { return multiply_tf32; }

void wgmma_lines(const WarpgroupProduct& product, Site site);  // rows of both lie side by side, of 2-byte elements

}  // namespace sim

inline uint32_t shared_address(const void* p, CONVLAB_SITE) { return sim::shared_address(p, site); }

inline void warpgroup_sees_writes() {}  // threads see each other's writes in program order here,
inline void warpgroup_begin() {}        // and registers are memory: missing fences do not show
inline void warpgroup_commit() { sim::warpgroup_commit(); }
template <int pending> void warpgroup_wait(CONVLAB_SITE) { sim::warpgroup_wait(pending, site); }
template <int pending = 0, int n> void warpgroup_wait_for(float (&)[n], CONVLAB_SITE) {
  sim::warpgroup_wait(pending, site);
}

template <class Element, bool kAdds = true, int n>
void wgmma(float (&sums)[n], MatrixDescriptor a, MatrixDescriptor b, CONVLAB_SITE) {
  static_assert(n == 32 || n == 64 || n == 96 || n == 128);
  sim::wgmma({sums, 2 * n, kAdds, nullptr, a, b, sim::multiply_of(Element{})}, site);
}
template <class Element, bool kAdds = true, int n>
void wgmma(float (&sums)[n], const uint32_t (&a)[4], MatrixDescriptor b, CONVLAB_SITE) {
  static_assert(n == 32 || n == 64 || n == 96 || n == 128);
  sim::wgmma({sums, 2 * n, kAdds, a, 0, b, sim::multiply_of(Element{})}, site);
}

template <class Element, int n>
void wgmma_lines(float (&sums)[n], MatrixDescriptor a, MatrixDescriptor b, CONVLAB_SITE) {
  static_assert(n == 32 || n == 64 || n == 96 || n == 128);
  static_assert(sizeof(Element) == 2, "rows of TF32 do not lie side by side");
  sim::wgmma_lines({sums, 2 * n, true, nullptr, a, b, sim::multiply_of(Element{})}, site);
}

}  // namespace convlab
