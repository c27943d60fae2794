#error cooperative groups are not simulated: write __syncthreads() for a block, __syncwarp() and __shfl_down_sync(0xffffffff, ...) for a warp; for the whole grid, launch another kernel
