// The kernels of winograd_2x2 and winograd_4x4: csrc/cpu/conv2d/winograd/tiling.h says what they are given.
#pragma once
#include "cpu/conv2d/block/finish.h"
#include "cpu/conv2d/winograd/tiling.h"
#include "cpu/stub.h"

namespace convlab {

// Panels [begin, end) of all groups -> filters [panels, points, depth, panel]; scratch as for the others
CONVLAB_KERNEL(winograd_filters,
               void(const winograd::Tiling&, const void* w, void* filters, int64_t begin, int64_t end, char* scratch));
// Pieces [begin, end) of forward or dgrad. filters: all of them, or null to transform those of a panel when it is needed;
// finish: or null, and then the target is written
CONVLAB_KERNEL(winograd_run,
               void(const winograd::Tiling&, const void* source, const void* w, const void* filters, const void* bias,
                    void* target, const Finish* finish, int64_t begin, int64_t end, char* scratch));
// Pieces [begin, end) of wgrad -> dw, or, if there are more slices than one, sums [slices, like dw]
CONVLAB_KERNEL(winograd_wgrad, void(const winograd::Tiling&, const void* dy, const void* x, void* dw, void* sums,
                                    int64_t begin, int64_t end, char* scratch));
// The filters of target channels [begin, end) of all groups from the slices' sums
CONVLAB_KERNEL(winograd_add_slices, void(const winograd::Tiling&, const void* dy, const void* x, const void* sums,
                                         void* dw, int64_t begin, int64_t end));

}  // namespace convlab
