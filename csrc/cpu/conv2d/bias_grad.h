// The gradient of the bias, dy [N, K, P, Q] summed over all but K
#pragma once
#include "cpu/conv2d/cpu_rung.h"
#include "cpu/stub.h"

namespace convlab {

void bias_grad(const Problem&, const void* dy, void* db);

// The channels [begin, end) of dy with planes -> db
CONVLAB_KERNEL(sum_planes,
               void(int images, int64_t plane, const Strides&, const void* dy, void* db, int64_t begin, int64_t end));
// Of the slices [begin, end) of dy [elements], `slice` elements each or the rest: rows of `columns` -> sums [slices, columns]
CONVLAB_KERNEL(sum_slices, void(int64_t elements, int64_t slice, int64_t columns, const void* dy, void* sums,
                                int64_t begin, int64_t end));
// sums [rows, channels] -> total [channels], and that -> db
CONVLAB_KERNEL(add_sums, void(const void* sums, int64_t rows, int channels, void* total, void* db));

}  // namespace convlab
