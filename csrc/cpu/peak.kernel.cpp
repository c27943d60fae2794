// Multiply-adds and nothing else, in as many registers as a tile has: what the machine reaches at most. For the
// benchmark.
#include "cpu/peak.h"
#include "cpu/simd/vec.h"

namespace convlab::CONVLAB_ISA {

// Makes `steps` multiply-adds in each lane of each sum; returns floating-point operations.
template <class T> double multiply_add(int64_t steps) {
  using A = acc_t<T>;
  constexpr int kSums = kSet.tile_pixels * kSet.tile_vectors;
  Vec<A> sums[kSums];
  for (int j = 0; j < kSums; j++) sums[j] = broadcast(A(j));  // equal ones would be computed once
  const Vec<A> a = broadcast(A(0.5)), b = broadcast(A(1));
  for (int64_t i = 0; i < steps; i++)
#pragma GCC unroll 32
    for (int j = 0; j < kSums; j++) sums[j] = sums[j] * a + b;
  for (int j = 0; j < kSums; j++) asm volatile("" : : "m"(sums[j]));
  return double(steps) * kSums * kLanes<A> * 2;
}

}  // namespace convlab::CONVLAB_ISA

CONVLAB_DEFINE(multiply_add, multiply_add)
