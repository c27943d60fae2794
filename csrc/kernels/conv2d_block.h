// The launchers of a block's ending, as launchers.h has those of the others: x and dx [planes, H, W], y, dy and winners
// [planes, P, Q].
#pragma once
#include "geometry/ending.h"
#include "kernels/launchers.h"

namespace convlab {

// conv2d_block.cu
void block_finish(const Ending&, const Pool2d&, DType, const void* x, void* y, void* winners_or_null, Stream);
void block_spread(const Ending&, const Pool2d&, DType, const void* dy, const void* winners, void* dx, Stream);

}  // namespace convlab
