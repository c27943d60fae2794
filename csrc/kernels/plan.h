// A launch as data: what a rung decides about a problem before it launches anything. Computed torch-free and without
// CUDA (rung.h), read by the rung's launchers, by the host side (which allocates the workspace) and by Python
// (convlab._lab).
#pragma once
#include <string>

#include "geometry/epilogue.h"
#include "geometry/layouts.h"

namespace convlab {

constexpr int kGridYZ = 65535;  // the hardware's limits on grid.y and grid.z,
constexpr int kGridX = 0x7fffffff;  // and on grid.x

constexpr long long ceil_div(long long a, long long b) { return (a + b - 1) / b; }

inline bool grid_fits(long long x, long long y, long long z) { return x <= kGridX && y <= kGridYZ && z <= kGridYZ; }

// Why a grid cannot be launched.
inline std::string grid_refusal(long long x, long long y, long long z) {
  const auto text = [](long long n) { return std::to_string(n); };
  return "would need a grid of " + text(x) + " x " + text(y) + " x " + text(z) + " blocks, and at most " +
         text(kGridX) + " x " + text(kGridYZ) + " x " + text(kGridYZ) + " are possible";
}

// A block makes M x N outputs in tiles of K steps of the sum; a thread makes rows x columns of them (gemm.h).
struct TileShape {
  int M, N, K, rows, columns;
  constexpr int threads() const { return (M / rows) * (N / columns); }

  // Blocks that a multiprocessor has registers for, and no more threads than help: loads of one block hide behind
  // another's work. One at least: ptxas makes a larger tile fit, with spills if need be.
  constexpr int blocks_at_once() const {
    constexpr int kRegisters = 65536, kThreads = 512, kAddressesAndOperands = 56;
    const int of_thread = rows * columns + (M + N) * K / threads() + kAddressesAndOperands;
    const int most = kThreads / threads(), fit = kRegisters / (of_thread * threads());
    const int blocks = fit < most ? fit : most;
    return blocks > 1 ? blocks : 1;
  }
};

// What of a convolution's filters is in constant memory at a time: that many whole groups; or, if a group does not fit,
// that many filters of it; or, if a filter does not fit, that many input channels of it.
struct FilterChunk {
  int groups, filters, channels;
};

// What tensor cores make of an element: its own 16 bits, float32 rounded to tf32, or float32 as the sum of two tf32.
enum class Precision { none, float16, bfloat16, tf32, tf32x3 };
constexpr const char* kPrecisionNames[] = {"", "float16", "bfloat16", "tf32", "3xtf32"};

struct Plan {
  int variant = 0;  // which instance of the rung's kernel: an index into its table of tiles or filters
  TileShape tile{};  // of rungs that have tiles
  long long rows = 0, columns = 0, steps = 0;  // of the matrix product those cover; of its parts, the largest
  unsigned grid[3] = {1, 1, 1};
  int threads = 0;  // a block
  double useful = 0;  // of what its blocks have room for, the share that exists: the rest falls over edges
  // Rows and columns of an output plane that a block makes, of rungs whose tiles are such rectangles.
  int plane[2] = {0, 0};
  int slices = 1;  // of wgrad's sum, added up by a second kernel
  long long slice = 0;  // steps in each but the last
  int images = 0;  // that a rung takes at a time, where it works in chunks
  FilterChunk chunk{};  // of the rung that keeps filters in constant memory
  long long shared = 0;  // bytes a block, of rungs whose shared memory depends on the problem
  Layouts layouts{};  // of rungs that take tensors as they lie
  bool aligned = false;  // whether those must begin on a multiple of 16 bytes
  Precision precision = Precision::none;  // of rungs on tensor cores
  Epilogue epilogue = Epilogue::none;  // of forward; where it has none, the ending is a launch of its own
  long long workspace = 0;  // bytes, device memory
  double microseconds = 0;  // that its cost says of an H200, of rungs that "auto" chooses between by it
};

}  // namespace convlab
