// PReLU's kernels, over rows as ByChannel has them.
#pragma once
#include "cpu/stub.h"
#include "geometry/by_channel.h"

namespace convlab {

// Rows [begin, end): out = t w where not x > 0; elsewhere t if keep, else 0
CONVLAB_KERNEL(prelu_scale, void(const ByChannel& g, bool keep, const void* t, const void* x, const void* w, void* out,
                                 int64_t begin, int64_t end));

// Slices [begin, end) of `slices`: parts [slices, channels] = sums of dy t where not x > 0
CONVLAB_KERNEL(prelu_wgrad, void(const ByChannel& g, int64_t slices, const void* dy, const void* t, const void* x,
                                 double* parts, int64_t begin, int64_t end));

// dw [channels] = parts [slices, channels] added up
CONVLAB_KERNEL(prelu_add_slices, void(int64_t channels, int64_t slices, const double* parts, void* dw));

}  // namespace convlab
