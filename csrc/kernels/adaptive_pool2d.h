// The launchers of adaptive_pool2d.cu and max_unpool2d.cu; see launchers.h. Tensors as in geometry/adaptive.h.
#pragma once
#include "geometry/adaptive.h"
#include "kernels/launchers.h"

namespace convlab {

void adaptive_average(const Adaptive&, DType, const void* x, void* y, Stream);
void adaptive_average_backward(const Adaptive&, DType, const void* dy, void* dx, Stream);
void adaptive_maximum(const Adaptive&, DType, const void* x, void* y, void* indices, Stream);
void adaptive_maximum_backward(const Adaptive&, DType, const void* dy, const void* indices, void* dx, Stream);

// x, indices [planes, P, Q] -> y [planes, H, W]; `owners` has an int for each element of y
void max_unpool(const Adaptive&, DType, const void* x, const void* indices, void* owners, void* y, Stream);
// x [planes, H, W], indices [planes, P, Q] -> y [planes, P, Q]
void planes_gather(const Adaptive&, DType, const void* x, const void* indices, void* y, Stream);

}  // namespace convlab
