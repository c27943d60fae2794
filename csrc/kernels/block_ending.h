// A block's ending (geometry/ending.h) in a kernel: of what is in registers, in shared memory or in memory.
#pragma once
#include "device/device.h"
#include "dtype.h"
#include "geometry/ending.h"

namespace convlab {

// The largest of a window's elements, taken in the order of their taps. T: the element type in memory.
template <class T> struct Winner {
  acc_t<T> value = acc_t<T>(0);
  int byte = 0;  // its tap, and kPasses

  // v: an output of the convolution, as memory would keep it. Of equals the first wins, a NaN over all before it.
  __device__ __forceinline__ void take(const Ending& e, acc_t<T> v, int tap) {
    const acc_t<T> a = acc_t<T>(T(activated(e.activation, acc_t<T>(e.slope), v)));
    meet({a, passes(e.activation, v) ? kPasses : 0}, tap);
  }
  // one: the window's next element, by itself
  __device__ __forceinline__ void meet(const Winner& one, int tap) {
    if (tap == 0 || one.value > value || one.value != one.value) value = one.value, byte = tap + one.byte;
  }
};

// What a block writes instead of its convolution's outputs: y and winners [N, K, P, Q], where winners may be null.
template <class T> struct BlockOutput {
  Ending ending;
  int P, Q;
  T* y;
  unsigned char* winners;

  __device__ __forceinline__ bool pools() const { return ending.pools(); }
  __device__ __forceinline__ void store(long long i, const Winner<T>& w) const {
    y[i] = T(w.value);
    if (winners) winners[i] = (unsigned char)w.byte;
  }
};

template <class T> BlockOutput<T> block_output(const Ending& e, const Pool2d& pool, void* y, void* winners) {
  return {e, pool.P, pool.Q, static_cast<T*>(y), static_cast<unsigned char*>(winners)};
}

}  // namespace convlab
