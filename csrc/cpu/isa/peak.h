// Multiply-adds and nothing else, in as many registers as a tile has: what the machine reaches at most. For the
// benchmark.
#pragma once
#include "cpu/isa/simd.h"

namespace convlab::CONVLAB_ISA {

// Makes `steps` multiply-adds in each lane of each sum; returns floating-point operations.
inline double multiply_add(int64_t steps) {
  constexpr int kSums = kTilePixels * kTileVectors;
  Vec<float> sums[kSums];
  for (int j = 0; j < kSums; j++) sums[j] = broadcast(float(j));  // equal ones would be computed once
  const Vec<float> a = broadcast(0.5f), b = broadcast(1.0f);
  for (int64_t i = 0; i < steps; i++)
#pragma GCC unroll 32
    for (int j = 0; j < kSums; j++) sums[j] = sums[j] * a + b;
  for (int j = 0; j < kSums; j++) asm volatile("" : : "m"(sums[j]));
  return double(steps) * kSums * kLanes<float> * 2;
}

}  // namespace convlab::CONVLAB_ISA
