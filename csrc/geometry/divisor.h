// Division by a number that many threads divide by: a multiplication and a shift. Exact for 0 <= n < 2^31.
#pragma once
#include <cstdint>

#include "geometry/conv2d.h"

namespace convlab {

struct Divisor {
  unsigned factor, shift;  // factor = ceil(2^shift / d), shift = 31 + ceil(log2 d): n (factor d - 2^shift) < 2^shift
  int d;

  Divisor() = default;
  explicit Divisor(int divisor) : shift(31), d(divisor > 0 ? divisor : 1) {
    while ((1ull << (shift - 31)) < unsigned(d)) shift++;
    factor = unsigned(((1ull << shift) + unsigned(d) - 1) / unsigned(d));
  }
  CONVLAB_HD int of(int n) const { return int(uint64_t(unsigned(n)) * factor >> shift); }
};

}  // namespace convlab
