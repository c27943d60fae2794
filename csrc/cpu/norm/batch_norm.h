// Batch normalization by running statistics, as in eval(), and the activation behind it: y = activated(x scale + shift),
// of x's channel.
#pragma once
#include "cpu/stub.h"
#include "geometry/by_channel.h"
#include "geometry/ending.h"

namespace convlab {

struct Normalization {
  ByChannel g;  // a row is `inner` elements of one channel, or, where inner is 1, one element of every channel
  Activation activation;
  double slope;

  int64_t rows() const { return g.inner == 1 ? g.outer : g.outer * g.channels; }
  int64_t row() const { return g.inner == 1 ? g.channels : g.inner; }
};

// Rows [begin, end). scale and shift [channels] are of the type of sums; shift may be null; y may be x
CONVLAB_KERNEL(normalize, void(const Normalization&, const void* scale, const void* shift, const void* x, void* y,
                               int64_t begin, int64_t end));

}  // namespace convlab
