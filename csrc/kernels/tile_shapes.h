// The tiles that the matrix rungs are compiled for, and why these.
#pragma once
#include "kernels/plan.h"

namespace convlab {

// The tiles a rung has for a pass, [first, last) of a table.
struct Tiles {
  const TileShape* table;
  int first, last;
};

// implicit_gemm and im2col_gemm: one output a thread, the classic shared-memory tile.
constexpr TileShape kSharedTile = {16, 16, 16, 1, 1};
constexpr Tiles kSharedTiles = {&kSharedTile, 0, 1};

// register_tiled. A tile loads (M + N) K elements for M N K multiply-adds, so larger is better as long as the matrix
// fills it and there is a tile for every multiprocessor. For float16 and bfloat16 only the last two of each list are
// compiled, to keep the build short.

constexpr TileShape kImageTiles[] = {
    // forward and dgrad: columns are pixels, of which there are many
    {128, 256, 8, 8, 16}, // 128 outputs a thread: the fewest loads for a multiply-add that 255 registers allow
    {128, 128, 8, 8, 8},  // half as large, for what those do not divide among multiprocessors
    {64, 128, 8, 8, 8},   // 64 channels
    {32, 128, 8, 4, 8},   // few channels: CIFAR's first layer
    {64, 64, 8, 8, 4},    // middling matrices: more blocks
    {16, 128, 8, 4, 4},   // very few channels: LeNet C1 and C3
};

constexpr TileShape kFilterTiles[] = {
    // wgrad: columns are taps, rows channels, and either may be few
    {128, 128, 8, 8, 8},
    {128, 32, 8, 8, 4},   // few taps: first layers, pointwise
    {64, 64, 8, 8, 4},
    {16, 32, 8, 4, 4},    // few of both: LeNet C1, 6 x 25
};

template <int n> constexpr Tiles all_of(const TileShape (&table)[n]) { return {table, 0, n}; }
template <int n> constexpr Tiles for_16_bits(const TileShape (&table)[n]) { return {table, n - 2, n}; }

}  // namespace convlab
