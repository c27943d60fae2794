// The main loop of the warpgroup rung's wgrad in TF32, which wgmma takes out of shared memory only where steps lie side by
// side. So rows are the channels of taps, which lie side by side in x and pass through registers, and are rounded there;
// columns are filters, of a dy whose positions were laid side by side before (positions_inner.h).
//
// Strict float32 is three TF32 products, of the halves of x that registers hold and those of dy, of which the second is laid
// out like the first (warpgroup_tf32x3.h).
//
// A tile of A is [steps][M], one of B [N][steps]. While the products of a tile are made, the threads load their part of the
// next one's A.
#pragma once
#include "device/mma.h"
#include "kernels/warpgroup_filter_tile.h"
#include "kernels/warpgroup_tf32x3.h"

namespace convlab {

// FilterMap's part with rows and columns exchanged
template <class Part> struct TurnedPart : Part {
  static constexpr bool rows_inner = true;
  int rows_together;

  static __device__ TurnedPart of(const Part& part) {
    TurnedPart p;
    static_cast<Part&>(p) = part;
    p.fours = false, p.rows_together = part.g.Cg() % 2 ? 1 : part.g.Cg() % 4 ? 2 : 4;
    return p;
  }
};

// dy is what it was before, so the sum is FilterMap's.
template <class Part> __device__ float one_by_one(const TurnedPart<Part>& part, long long m, long long n, int K) {
  return one_by_one(static_cast<const Part&>(part), n, m, K);
}

// Makes the block's tile whose first row is m0 and first column n0.
template <class Tile, class Part>
__device__ __forceinline__ void multiply_filter_tf32(const Part& part, const OutputSteps& by, long long m0,
                                                     long long n0) {
  constexpr int K = Tile::K, kCopiersOfB = copiers(Tile::N, Tile::threads);
  using TileOfA = OperandTile<float, Tile::M, true, Tile::threads>;
  using TileOfB = OperandTile<float, Tile::N, false, kCopiersOfB>;
  using WideA = typename TileOfA::Wide;
  using WideB = typename TileOfB::Wide;
  static_assert(K == TileOfA::kSteps && TileOfA::kElements * 4 % kSwizzleBytes == 0 && Tile::pending == 1);
  DYNAMIC_SHARED(float, unaligned);  // [stages][A, B], and in the end [M][N] sums, from a multiple of 1024 bytes on
  float* const tiles = on_swizzle_boundary(unaligned);
  SHARED(Lines<Tile>, lines, [1]);
  const int thread = int(threadIdx.x), count = part.tiles(K);
#pragma unroll 1
  for (int i = thread; i < Tile::M; i += Tile::threads) {
    Position unused;
    part.column(m0 + i, unused, lines[0].row[i]);
  }
#pragma unroll 1
  for (int i = thread; i < Tile::N; i += Tile::threads) {
    Position unused;
    part.row(n0 + i, unused, lines[0].column[i]);
    lines[0].bias[i] = 0;
  }

  // This thread's chunk of A's lines, in every so many steps, and of B's steps, in every so many lines
  Position tap;
  long long unused;
  part.column(m0 + WideA::column(), tap, unused);
  OutputWalk<float> walk(part, WideA::first(), K);
  walk.x += tap.offset, walk.h += tap.h, walk.w += tap.w;
  const int b_h = part.b_h, b_w = part.b_w, end_h = by.end_h + tap.h, end_w = by.end_w + tap.w;
  const long long pitch = part.of_dy.channel;
  const float* dy = part.a_base + part.begin + WideB::column() + (n0 + WideB::first()) * pitch;
  [[maybe_unused]] const long long small_dy = part.g.K * pitch;
  int dy_left = part.steps - WideB::column();
  const bool copies_b = Tile::threads == kCopiersOfB || thread < kCopiersOfB;
  const int dy_lines =
      int(min((part.rows - n0 - WideB::first() + WideB::kEvery - 1) / WideB::kEvery, (long long)Tile::N));
  const auto copy = [&](float* tile) {
    float* to = tile + TileOfA::at(WideA::first(), WideA::column());
#pragma unroll
    for (int i = 0; i < WideA::kCount; i++) {
      const bool inside = walk.left > 0 && unsigned(walk.h) < unsigned(b_h) && unsigned(walk.w) < unsigned(b_w);
      async_copy<kChunkBytes>(to + i * WideA::kEvery * TileOfA::kPitch, walk.x, inside ? kChunkBytes : 0);
      walk.advance(by, end_h, end_w);
    }
    if (copies_b) {
      to = tile + TileOfA::kElements + TileOfB::at(WideB::first(), WideB::column());
      const int there = dy_left > 0 ? dy_lines : 0;
#pragma unroll
      for (int part_of_b = 0; part_of_b < (Tile::splits ? 2 : 1); part_of_b++)
#pragma unroll
        for (int i = 0; i < WideB::kCount; i++)
          async_copy<kChunkBytes>(to + part_of_b * TileOfB::kElements + i * WideB::kEvery * TileOfB::kPitch,
                                  dy + part_of_b * small_dy + pitch * (i * WideB::kEvery), i < there ? kChunkBytes : 0);
    }
    dy += K, dy_left -= K;
  };

  constexpr int kElements = TileOfA::kElements + (Tile::splits ? 2 : 1) * TileOfB::kElements;
  constexpr int kEnd = Tile::stages * kElements;
#pragma unroll
  for (int i = 0; i < Tile::ahead; i++) {
    if (i < count) copy(tiles + i * kElements);
    async_commit();
  }

  float sums[Tile::N / 2];
#pragma unroll
  for (int i = 0; i < Tile::N / 2; i++) sums[i] = 0;
  const int lane_a = TileOfA::template lane_at<true>(thread / 32 * 16);
  const auto next_is_there = [] {
    async_wait<Tile::ahead - 1>();
    warpgroup_sees_writes();
    __syncthreads();
  };
  const MatrixDescriptor first_b = shared_matrix(tiles + TileOfA::kElements);
  const auto moved = [](int elements) { return MatrixDescriptor(elements * int(sizeof(float)) / 16); };
  const auto behind = [](int stage) { return stage + kElements == kEnd ? 0 : stage + kElements; };
  int full = 0, free = Tile::ahead * kElements;  // where the tile is that is multiplied, and the one that is copied to

  float line_sum = 0, line_lost = 0;
  const bool sums_lines = part.wants_line_sums && m0 == 0 && thread < Tile::N;
  const auto copy_and_sum_lines = [&](int tile) {
    if (tile + Tile::ahead < count) copy(tiles + free);
    async_commit();
    if (!sums_lines) return;
    const float* b_tile = tiles + full + TileOfA::kElements;
    float of_tile = 0;
#pragma unroll 8
    for (int k = 0; k < K; k++)  // so that 32 lines are in 32 banks
      of_tile += b_tile[TileOfB::at(thread, k ^ (thread / 8 % 4))];
    const float before = line_sum, more = of_tile - line_lost;  // Kahan: a slice has thousands of tiles
    line_sum = before + more, line_lost = (line_sum - before) - more;
  };
  // Of the tile behind `full`, which the products of this one's predecessor do not read any more: it may be written.
  const auto move_on = [&] {
    full = behind(full), free = behind(free);
    next_is_there();
  };

  next_is_there();
  if constexpr (Tile::splits) {
    ProductsOfThree<TileOfA, TileOfB, Tile::N / 2> three(lane_a);
    if (count > 0) three.split_a(tiles, 0);
#pragma unroll 1
    for (int tile = 0; tile < count; tile++) {
      const MatrixDescriptor b = first_b + moved(full);
      three.multiply(b, 0);
      three.split_a(tiles + full, three.kGroup);
      copy_and_sum_lines(tile);
      three.add_to(sums);
      three.multiply(b, three.kGroup);
      if (tile + 1 < count) {
        move_on();
        three.split_a(tiles + full, 0);
      }
      three.add_to(sums);
    }
  } else {
    uint32_t even[kInstructions][4], odd[kInstructions][4] = {};
    const auto load = [&](uint32_t (&to)[kInstructions][4], const float* tile) {
#pragma unroll
      for (int k = 0; k < kInstructions; k++) {
        TileOfA::template load_four<true>(to[k], tile, lane_a, 0, k);
#pragma unroll
        for (int i = 0; i < 4; i++) to[k][i] = to_tf32(__uint_as_float(to[k][i]));
      }
    };
    const auto step = [&](int tile, const uint32_t (&now)[kInstructions][4], uint32_t (&next)[kInstructions][4]) {
      const MatrixDescriptor b = first_b + moved(full);
      warpgroup_begin();
#pragma unroll
      for (int k = 0; k < kInstructions; k++) wgmma<float>(sums, now[k], at_step(b, k * kInstructionBytes));
      warpgroup_commit();
      copy_and_sum_lines(tile);
      if (tile + 1 < count) {
        move_on();
        load(next, tiles + full);
      }
      warpgroup_wait<0>();
    };
    if (count > 0) load(even, tiles);
#pragma unroll 1
    for (int tile = 0; tile < count; tile += 2) {
      step(tile, even, odd);
      if (tile + 1 < count) step(tile + 1, odd, even);
    }
  }
  warpgroup_wait_for(sums);
  async_wait<0>();
  if (sums_lines && n0 + thread < part.rows) part.store_line_sum(n0 + thread, line_sum);

  __syncthreads();  // nobody reads the tiles
  float* all = tiles;
  write_sums<Tile>(all, sums);
  __syncthreads();
  if constexpr (Tile::splits) {
    make_exact<Tile>(part, all, m0, n0);
    __syncthreads();
  }
  store_sums<Tile>(part, lines[0], all);
}

// grid (ceil(channels of taps / M), ceil(filters / N), parts)
template <class Tile, class Map>
__global__ void __launch_bounds__(Tile::threads, Tile::blocks)
    warpgroup_filter_tf32_kernel(const __grid_constant__ Map map) {
  using Part = TurnedPart<typename Map::Part>;
  SHARED(Part, part, [1]);  // in shared memory, because the loop needs the registers
  SHARED(OutputSteps, by, [1]);
  if (threadIdx.x == 0) {
    part[0] = Part::of(map.part(blockIdx.z));
    by[0] = OutputSteps::of(part[0], OperandTile<float, Tile::M, true, Tile::threads>::Wide::kEvery);
  }
  __syncthreads();
  multiply_filter_tf32<Tile>(part[0], by[0], (long long)blockIdx.x * Tile::M, (long long)blockIdx.y * Tile::N);
}

}  // namespace convlab
