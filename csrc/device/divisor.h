// Division by a number that is the same for a whole launch: a multiplication and a shift instead of some twenty
// instructions.
#pragma once
#include "device/device.h"
#include "geometry/conv2d.h"

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

  // For code that is written for an int, and for the host
  CONVLAB_HD operator int() const { return int(by); }
  friend CONVLAB_HD int operator/(int n, Divisor d) {
#if defined(__CUDA_ARCH__)
    return int(d.quotient(unsigned(n)));
#else
    return n / int(d.by);
#endif
  }
  friend CONVLAB_HD int operator%(int n, Divisor d) { return n - n / d * int(d.by); }
};

}  // namespace convlab
