// A launch as data: what a rung decides about a problem before it launches anything. Computed torch-free and without CUDA
// (plans.cpp), read by the rung's launchers, by the host side (which allocates the workspace) and by Python (convlab._lab).
#pragma once

namespace convlab {

// A block makes M x N outputs in tiles of K steps of the sum; a thread makes rows x columns of them (gemm.h).
struct TileShape {
  int M, N, K, rows, columns;
  constexpr int threads() const { return (M / rows) * (N / columns); }
};

struct Plan {
  int variant = 0;            // which instance of the rung's kernel: an index into its table of tiles or filters
  TileShape tile{};           // of rungs that have tiles
  long long rows = 0, columns = 0, steps = 0;  // of the matrix product those cover; of its parts, the largest
  unsigned grid[3] = {1, 1, 1};
  int threads = 0;            // a block
  int slices = 1;             // of wgrad's sum, added up by a second kernel
  long long slice = 0;        // steps in each but the last
  int images = 0;             // that a rung takes at a time, where it works in chunks
  long long workspace = 0;    // bytes, device memory
};

}  // namespace convlab
