// The launchers of leaky ReLU with a bit an element, as launchers.h has those of the others: x, y, dy and dx [elements],
// positive [ceil(elements / 8)] bytes, of which element 8 i is the lowest bit of byte i.
#pragma once
#include "kernels/launchers.h"

namespace convlab {

// leaky_relu.cu
void leaky_relu_forward_bits(DType, long long elements, double negative_slope, const void* x, void* y, void* positive,
                             Stream);
void leaky_relu_backward_bits(DType, long long elements, double negative_slope, const void* dy, const void* positive,
                              void* dx, Stream);

}  // namespace convlab
