// The main loop of the warpgroup rung: that of tensor_core_tile.h with wgmma, which takes a warpgroup's 64 rows of A and
// all columns of B out of shared memory by itself.
//
// A and B are tiles whose steps lie side by side, and are walked along, tap by tap (OperandTile, TapWalk). Of kStages tiles
// one is multiplied, kPending more may still be, and the others are on their way: one wait and one barrier a tile.
#pragma once
#include "device/wgmma.h"
#include "kernels/tensor_core_tile.h"

namespace convlab {

// A block makes kM x kN, a warpgroup 64 rows of it. kPending: tiles whose products may be under way when the block waits for
// the next tile. kBlocks: as WarpTile.
template <int kM, int kN, int kK, int kStages, int kPending, int kBlocks> struct WarpgroupTile {
  static constexpr int M = kM, N = kN, K = kK, stages = kStages, pending = kPending, blocks = kBlocks;
  static constexpr int threads = M / kWarpgroupRows * kWarpgroupThreads, ahead = stages - 1 - pending;
  static constexpr bool splits = false;
  static_assert(M % kWarpgroupRows == 0 && ahead > 0);
};
// Of strict float32, which is split in two (warpgroup_tf32x3.h)
template <int... k> struct SplitTile : WarpgroupTile<k...> {
  static constexpr bool splits = true;
};

// kLines of an operand are copied by all threads of a block where they share them evenly, else by the first so many.
constexpr int copiers(int lines, int threads) { return lines * 8 % threads ? 256 : threads; }

// Where a block's tiles lie: in each stage one of A, one of B, and, where it splits, B's small parts.
template <class Element, class Tile> struct WarpgroupStages {
  using A = OperandTile<Element, Tile::M, false, copiers(Tile::M, Tile::threads)>;
  using B = OperandTile<Element, Tile::N, false, copiers(Tile::N, Tile::threads)>;
  static_assert(Tile::K == A::kSteps);
  static constexpr int kElements = A::kElements + (Tile::splits ? 2 : 1) * B::kElements;
  static constexpr int kEnd = Tile::stages * kElements;
  static __device__ __forceinline__ int behind(int stage) { return stage + kElements == kEnd ? 0 : stage + kElements; }
  static __device__ __forceinline__ MatrixDescriptor moved(int elements) {
    return elements * int(sizeof(Element)) / 16;
  }
};

// Which all lanes of a warp have: the compiler sees it so.
__device__ __forceinline__ int warpgroup_of_thread() {
  return __shfl_sync(0xffffffff, int(threadIdx.x) / kWarpgroupThreads, 0);
}

// The loop over tiles; copies of the first Tile::ahead are on their way, and copy(to) starts those of the next.
template <class Element, class Tile, class Copy>
__device__ __forceinline__ void multiply_tiles(float (&sums)[Tile::N / 2], Element* tiles, int count,
                                               const Copy& copy) {
  using Stages = WarpgroupStages<Element, Tile>;
  const MatrixDescriptor first_a = at_row(shared_matrix(tiles), warpgroup_of_thread() * kWarpgroupRows);
  const MatrixDescriptor first_b = shared_matrix(tiles + Stages::A::kElements);
  int full = 0, free = Tile::ahead * Stages::kElements;  // the tile that is multiplied, and the one that is copied to
#pragma unroll 1
  for (int tile = 0; tile < count; tile++) {
    async_wait<Tile::ahead - 1>();
    warpgroup_sees_writes();
    __syncthreads();  // this tile is there, and the products of the one that lay in `free` are made
    const MatrixDescriptor a = first_a + Stages::moved(full), b = first_b + Stages::moved(full);
    warpgroup_begin();
#pragma unroll
    for (int k = 0; k < kInstructions; k++)
      wgmma<Element>(sums, at_step(a, k * kInstructionBytes), at_step(b, k * kInstructionBytes));
    warpgroup_commit();
    if (tile + Tile::ahead < count) copy(tiles + free);
    async_commit();
    full = Stages::behind(full), free = Stages::behind(free);
    warpgroup_wait<Tile::pending>();
  }
  warpgroup_wait_for(sums);
}

// The same in strict float32
template <class Tile, class Copy>
__device__ __forceinline__ void multiply_tiles_in_three(float (&sums)[Tile::N / 2], float* tiles, int count,
                                                        const Copy& copy);

// The threads' sums to shared memory, as store_sums finds them
template <class Tile> __device__ __forceinline__ void write_sums(float* all, const float (&sums)[Tile::N / 2]) {
  const int thread = int(threadIdx.x), mine = sum_at<Tile>(thread / 32 * 16 + thread % 32 / 4, 2 * (thread % 4));
#pragma unroll
  for (int j = 0; j < Tile::N / 8; j++)
#pragma unroll
    for (int half = 0; half < 2; half++)
      store_shared(all + sum_after<Tile>(mine, half, j),
                   Vector<float, 2>{{sums[4 * j + 2 * half], sums[4 * j + 2 * half + 1]}});
}

// Makes the block's tile whose first row is m0 and first column n0. `part` is what the Map gives this block to do.
template <class Element, class Tile, class Part>
__device__ __forceinline__ void multiply_by_warpgroups(const Part& part, long long m0, long long n0) {
  static_assert(!Part::kLinesInner && !Part::kBAsA);
  constexpr int K = Tile::K;
  using Stages = WarpgroupStages<Element, Tile>;
  using TileOfA = typename Stages::A;
  using TileOfB = typename Stages::B;
  DYNAMIC_SHARED(Element, unaligned);  // [stages][A, B], and in the end [M][N] sums, from a multiple of 1024 bytes on
  Element* const tiles = on_swizzle_boundary(unaligned);
  Position* const positions = reinterpret_cast<Position*>(tiles);  // of A's lines, where its first tile will lie
  SHARED(Lines<Tile>, lines, [1]);
  const int thread = int(threadIdx.x);

#pragma unroll 1
  for (int i = thread; i < Tile::M; i += Tile::threads) {
    Position a;
    part.row(m0 + i, a, lines[0].row[i]);
    write(positions + i, a);
  }
#pragma unroll 1
  for (int i = thread; i < Tile::N; i += Tile::threads) {
    Position b;
    part.column(n0 + i, b, lines[0].column[i]);
    lines[0].bias[i] = n0 + i < part.columns ? part.bias_of(n0 + i) : 0.0f;
  }
  const int count = part.tiles(K);
  __syncthreads();  // the lines' positions are there

  using Wide = typename TileOfB::Wide;
  constexpr int kCopiersOfB = copiers(Tile::N, Tile::threads);
  const bool copies_b = Tile::threads == kCopiersOfB || thread < kCopiersOfB;
  const typename TileOfA::ImageLines image(positions);
  const int a_h = part.a_h, a_w = part.a_w, depth = part.walk.depth, pitch = part.filter_pitch;
  TapPosition<Element> at = part.first_tap;
  at.a += read(positions).offset, at.b += (n0 + Wide::first()) * pitch;
  at.advance(Wide::column(), depth, part.walk);
  const int filters =
      int(min((part.columns - n0 - Wide::first() + Wide::kEvery - 1) / Wide::kEvery, (long long)Tile::N));
  const auto copy = [&](Element* tile) {
    image.copy(tile, at.a, at.left > 0 ? at.h : kFarOutside, at.w, a_h, a_w);
    if (copies_b) TileOfB::copy_filters(tile + TileOfA::kElements, at.b, pitch, at.left > 0 ? filters : 0);
    at.advance(K, depth, part.walk);
  };

  __syncthreads();  // nobody reads the positions
#pragma unroll
  for (int i = 0; i < Tile::ahead; i++) {
    if (i < count) copy(tiles + i * Stages::kElements);
    async_commit();
  }

  float sums[Tile::N / 2];
#pragma unroll
  for (int i = 0; i < Tile::N / 2; i++) sums[i] = 0;
  if constexpr (Tile::splits) multiply_tiles_in_three<Tile>(sums, tiles, count, copy);
  else multiply_tiles<Element, Tile>(sums, tiles, count, copy);
  async_wait<0>();

  __syncthreads();  // nobody reads the tiles
  float* all = reinterpret_cast<float*>(tiles);
  write_sums<Tile>(all, sums);
  __syncthreads();
  if constexpr (Tile::splits) {
    make_exact<Tile>(part, all, m0, n0);
    __syncthreads();
  }
  store_sums<Tile>(part, lines[0], all);
}

// grid (ceil(rows / M), ceil(columns / N), parts). only: the part, if there is one: making it takes a thread a microsecond.
template <class Element, class Tile, class Map>
__global__ void __launch_bounds__(Tile::threads, Tile::blocks)
    warpgroup_kernel(const __grid_constant__ Map map, const __grid_constant__ typename Map::Part only) {
  using Part = typename Map::Part;
  SHARED(Part, part, [1]);  // in shared memory, because the loop needs the registers
  if (gridDim.z == 1) {
    constexpr int kWords = sizeof(Part) / sizeof(int);
    static_assert(kWords * sizeof(int) == sizeof(Part) && kWords <= Tile::threads);
    if (threadIdx.x < kWords)
      reinterpret_cast<int*>(part)[threadIdx.x] = reinterpret_cast<const int*>(&only)[threadIdx.x];
  } else {
    map.make_part(int(blockIdx.z), part[0]);
  }
  __syncthreads();
  const long long m0 = (long long)blockIdx.x * Tile::M, n0 = (long long)blockIdx.y * Tile::N;
  if (m0 >= part[0].rows) return;  // parts may differ in rows
  multiply_by_warpgroups<Element, Tile>(part[0], m0, n0);
}

}  // namespace convlab

#include "kernels/warpgroup_tf32x3.h"
