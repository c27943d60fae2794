// Batch normalization and the activation behind it: y = activated(x scale + shift), of x's channel.
#pragma once
#include "cpu/stub.h"
#include "geometry/by_channel.h"
#include "geometry/ending.h"

namespace convlab {

struct Normalization {
  ByChannel g;
  Activation activation;
  double slope;
  long long x_channels = g.channels, y_channels = g.channels;  // in memory, of which g's come first
};

// Rows [begin, end) of x, as ByChannel has them. scale and shift [channels] are of the type of sums; shift may be null; y
// may be x
CONVLAB_KERNEL(normalize, void(const Normalization&, const void* scale, const void* shift, const void* x, void* y,
                               int64_t begin, int64_t end));

}  // namespace convlab
