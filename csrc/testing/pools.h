// The problem of a pooling, for kernels of one's own: images and channels apart, for launchers in plain CUDA.
#pragma once
#include "geometry/avg_pool2d.h"

namespace convlab {

template <class Pooling> struct OfImages : Pooling {
  int N, C;
};

}  // namespace convlab
