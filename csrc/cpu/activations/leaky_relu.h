// The activations' kernels, on elements [begin, end). Bits are those of eight elements a byte, the first the lowest;
// begin is a multiple of eight.
#pragma once
#include "cpu/stub.h"
#include "geometry/ending.h"

namespace convlab {

CONVLAB_KERNEL(leaky_relu_forward,
               void(double slope, const void* x, void* y, uint8_t* positive_or_null, int64_t begin, int64_t end));
CONVLAB_KERNEL(leaky_relu_backward,
               void(double slope, const void* dy, const uint8_t* positive, void* dx, int64_t begin, int64_t end));
CONVLAB_KERNEL(leaky_relu_forward_bits,
               void(double slope, const void* x, void* y, uint8_t* positive, int64_t begin, int64_t end));
CONVLAB_KERNEL(leaky_relu_backward_bits,
               void(double slope, const void* dy, const uint8_t* positive, void* dx, int64_t begin, int64_t end));
CONVLAB_KERNEL(relu_forward, void(const void* x, void* y, int64_t begin, int64_t end));
CONVLAB_KERNEL(relu_backward, void(const void* dy, const void* y, void* dx, int64_t begin, int64_t end));
CONVLAB_KERNEL(relu6_forward, void(const void* x, void* y, int64_t begin, int64_t end));
CONVLAB_KERNEL(relu6_backward, void(const void* dy, const void* y, void* dx, int64_t begin, int64_t end));

// x = activated(x + t)
CONVLAB_KERNEL(add_activated, void(Activation, double slope, const void* t, void* x, int64_t begin, int64_t end));

}  // namespace convlab
