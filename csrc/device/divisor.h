// Division by a number that is the same for a whole launch: a multiplication and a shift instead of some twenty
// instructions.
#pragma once
#include "device/device.h"

namespace convlab {

struct Divisor {
  unsigned by, factor;
  int shift;

  Divisor() = default;
  explicit Divisor(long long divisor) : by(unsigned(divisor)), shift(0) {  // 1 to 2^31
    while ((1ULL << shift) < by) shift++;
    factor = unsigned(((1ULL << 32) * ((1ULL << shift) - by)) / by + 1);
  }

  // n / by, for n < 2^31
  __device__ __forceinline__ unsigned quotient(unsigned n) const { return (__umulhi(n, factor) + n) >> shift; }
};

}  // namespace convlab
