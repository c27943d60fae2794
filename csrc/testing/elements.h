// The problem of an activation, for kernels of one's own.
#pragma once

namespace convlab {

struct Elements {
  long long elements;
  double negative_slope;
};

}  // namespace convlab
