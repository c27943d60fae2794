// Packing and unpacking weights: what algorithms share. A vector's weights are [R S, depth, lanes].
#pragma once
#include "cpu/conv2d/product.h"
#include "cpu/stub.h"

namespace convlab {

// The vectors [begin, end) of all groups
CONVLAB_KERNEL(pack_weights, void(const Filters&, const void* w, void* packed, int64_t begin, int64_t end));
// From the sum of `slices` that lie `slice` elements apart
CONVLAB_KERNEL(unpack_weights, void(const Filters&, const void* packed, int slices, int64_t slice, void* w,
                                    int64_t begin, int64_t end));

// bias [groups, width], or null -> [groups, padded], with zeros
CONVLAB_KERNEL(pack_bias, void(const void* bias, int64_t groups, int64_t width, int64_t padded, void* packed));

// sums [slices, groups, width, depth, R S] -> w: their sum, in their order; bias [depth] is added where it is not null
CONVLAB_KERNEL(add_slices, void(const Filters&, const void* sums, int slices, const void* bias, void* w));

}  // namespace convlab
