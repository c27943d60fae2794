// What a block makes of a convolution's outputs, and of its gradient, as plain data. Torch-free, and for kernels as well.
#pragma once
#include "cpu/stub.h"
#include "geometry/ending.h"

namespace convlab {

struct BlockEnd {
  Ending ending;
  Pool2d g;
  int64_t channels;  // of a position, where they lie side by side, else 1

  int64_t rows() const { return g.planes / channels * g.P; }  // of windows, of all planes
};

// Rows of windows [begin, end): x -> y, winners, which may be null; and dy, winners -> dx
CONVLAB_KERNEL(block_finish,
               void(const BlockEnd&, const void* x, void* y, uint8_t* winners, int64_t begin, int64_t end));
CONVLAB_KERNEL(block_spread,
               void(const BlockEnd&, const void* dy, const uint8_t* winners, void* dx, int64_t begin, int64_t end));

}  // namespace convlab
