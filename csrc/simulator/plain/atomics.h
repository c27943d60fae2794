// CUDA's atomic functions beyond those of simulator/atomics.h, all made of atomicCAS.
#pragma once
#include <bit>

#include "simulator/atomics.h"

namespace convlab::sim::plain {

template <class T, class F> T update(T* address, F f, Site site) {
  static_assert(sizeof(T) == 4);
  unsigned* const bits = reinterpret_cast<unsigned*>(address);
  unsigned old = atomic_cas(bits, 0, 0, site), expected;
  do {
    expected = old;
    old = atomic_cas(bits, expected, std::bit_cast<unsigned>(T(f(std::bit_cast<T>(expected)))), site);
  } while (old != expected);
  return std::bit_cast<T>(old);
}

}  // namespace convlab::sim::plain

#define CONVLAB_PLAIN_ATOMIC(name, T, result)                                         \
  inline T name(T* address, T value, CONVLAB_SITE) {                                  \
    return convlab::sim::plain::update(address, [=](T old) { return result; }, site); \
  }
CONVLAB_PLAIN_ATOMIC(atomicMax, unsigned, old < value ? value : old)
CONVLAB_PLAIN_ATOMIC(atomicMin, int, value < old ? value : old)
CONVLAB_PLAIN_ATOMIC(atomicMin, unsigned, value < old ? value : old)
CONVLAB_PLAIN_ATOMIC(atomicSub, int, int(unsigned(old) - unsigned(value)))
CONVLAB_PLAIN_ATOMIC(atomicSub, unsigned, old - value)
CONVLAB_PLAIN_ATOMIC(atomicAnd, int, old& value)
CONVLAB_PLAIN_ATOMIC(atomicAnd, unsigned, old& value)
CONVLAB_PLAIN_ATOMIC(atomicOr, int, old | value)
CONVLAB_PLAIN_ATOMIC(atomicOr, unsigned, old | value)
CONVLAB_PLAIN_ATOMIC(atomicXor, int, old ^ value)
CONVLAB_PLAIN_ATOMIC(atomicXor, unsigned, old ^ value)
CONVLAB_PLAIN_ATOMIC(atomicExch, int, value)
CONVLAB_PLAIN_ATOMIC(atomicExch, unsigned, value)
CONVLAB_PLAIN_ATOMIC(atomicExch, float, value)
CONVLAB_PLAIN_ATOMIC(atomicInc, unsigned, old >= value ? 0 : old + 1)
CONVLAB_PLAIN_ATOMIC(atomicDec, unsigned, old == 0 || old > value ? value : old - 1)
#undef CONVLAB_PLAIN_ATOMIC
inline int atomicCAS(int* address, int expected, int value, CONVLAB_SITE) {
  return int(convlab::sim::atomic_cas(reinterpret_cast<unsigned*>(address), unsigned(expected), unsigned(value), site));
}
