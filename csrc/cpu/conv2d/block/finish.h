// What a forward kernel does after each strip of its target, while the strip is in a cache: it writes what the block
// makes of the strip, and not the strip. Plain data. Torch-free, and for kernels as well.
#pragma once
#include <type_traits>

#include "cpu/conv2d/product.h"
#include "geometry/ending.h"

namespace convlab {

struct Finish {
  Ending ending;
  int P, Q;  // windows of an image
  Strides to;  // of y and winners [N, K, P, Q]
  void* y;
  unsigned char* winners;  // may be null

  CONVLAB_INLINE int elements() const { return ending.R * ending.S; }

  // For an activation alone, rows may be those that 1 x 1 filters have their planes cut into
  CONVLAB_INLINE Finish over(const Product& p) const {
    Finish f = *this;
    if (elements() > 1) return f;
    f.P = p.rows.target, f.Q = p.columns.target;
    if (to.w == 1) f.to.h = f.Q;
    return f;
  }
};

// A strip's windows before they are transposed: [windows, channels of a panel]
template <class A> struct Finished {
  A* values;
  std::conditional_t<sizeof(A) == 8, int64_t, int32_t>* winners;

  template <class Memory> CONVLAB_INLINE Finished(Memory& memory, int64_t count) {
    memory.take(values, count), memory.take(winners, count);
  }
};

}  // namespace convlab
