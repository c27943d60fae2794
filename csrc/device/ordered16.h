// Pairs of float16 or bfloat16 as pairs of 16-bit integers that lie in the same order, so that one integer maximum
// compares values together with what is written below them.
//
//   unsigned pair = ordered<T>(two of T, as they lie in memory);    ordered_back(pair): the two again
//
// -0 becomes 0, and every NaN kOrderedNaN, above all others.
#pragma once
#include <type_traits>

#include "device/vector.h"

namespace convlab {

constexpr int kOrderedNaN = 0x7fff;

#if defined(__CUDACC__)

// 0xffff where a half is negative
__device__ __forceinline__ unsigned signs_of_pair(unsigned pair) {
  unsigned signs;
  asm("prmt.b32 %0, %1, 0, 0xbb99;" : "=r"(signs) : "r"(pair));
  return signs;
}

// x + 0: what an addition makes of a NaN is 0x7fff
template <class T> __device__ __forceinline__ unsigned plus_zero(unsigned pair) {
  using Two = std::conditional_t<std::is_same_v<T, __half>, __half2, __nv_bfloat162>;
  Two two, zero;
  const unsigned zeros = 0;
  memcpy(static_cast<void*>(&two), &pair, sizeof two);
  memcpy(static_cast<void*>(&zero), &zeros, sizeof zero);
  two = __hadd2(two, zero);
  memcpy(&pair, &two, sizeof pair);
  return pair;
}

#else

inline unsigned signs_of_pair(unsigned pair) { return (pair >> 15 & 0x10001u) * 0xffffu; }

template <class T> inline unsigned plus_zero(unsigned pair) {
  Vector<T, 2> two;
  memcpy(static_cast<void*>(&two), &pair, sizeof two);
  unsigned sums = 0;
  for (int i = 0; i < 2; i++) {
    const float value = float(two.at[i]);
    const unsigned bits = pair >> 16 * i & 0xffffu;
    sums |= (value != value ? unsigned(kOrderedNaN) : value == 0 ? 0u : bits) << 16 * i;
  }
  return sums;
}

#endif

__device__ __forceinline__ unsigned ordered_back(unsigned pair) { return pair ^ (signs_of_pair(pair) & 0x7fff7fffu); }

template <class T> __device__ __forceinline__ unsigned ordered(unsigned pair) {
  return ordered_back(plus_zero<T>(pair));  // the same both ways
}

}  // namespace convlab
