// Strict float32 in the warpgroup rung: x = big + small, two TF32 numbers, and three products, small big + big small + big
// big; small small is left out.
//
// A goes through registers, which split it: big is x rounded to 11 bits. B lies in shared memory twice: as it is, of which
// wgmma takes the first 11 bits, and what that leaves, rounded, which threads write beside it a tile ahead.
//
// The tensor cores truncate what they add to a sum, so 16 steps are summed by themselves, in registers that the first product
// overwrites, and added in float32, while another warpgroup's products are made.
#pragma once
#include "kernels/warpgroup_tile.h"

namespace convlab {

constexpr uint32_t kTf32Bits = 0xffffe000, kHalfOfTf32 = 0x1000;  // what it has of a float32; rounds to nearest

__device__ __forceinline__ float big_of_b(float x) { return __uint_as_float(__float_as_uint(x) & kTf32Bits); }
__device__ __forceinline__ float small_of_b(float x) {
  return __uint_as_float(__float_as_uint(x - big_of_b(x)) + kHalfOfTf32);  // wgmma ignores the other bits
}

// Of an infinity or a NaN one of the parts is not finite, nor are its products then.
struct SplitFragment {
  uint32_t big[4], small[4];

  __device__ __forceinline__ void split(const uint32_t (&raw)[4]) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      big[i] = (raw[i] + kHalfOfTf32) & kTf32Bits;
      small[i] = __float_as_uint(__uint_as_float(raw[i]) - __uint_as_float(big[i]));
    }
  }
};

// A thread's rows of a tile of A, split, and the products that are not in the sums yet. A tile is multiplied in two groups of
// kGroup instructions along its steps, times three.
template <class TileOfA, class TileOfB, int n> struct ProductsOfThree {
  static constexpr int kGroup = kInstructions / 2;
  int lane;  // where this one finds its part of A
  SplitFragment a[kInstructions];  // those of a group are under way when the next one's are split
  float products[n] = {};

  explicit __device__ __forceinline__ ProductsOfThree(int lane) : lane(lane) {}  // nobody reads `a` before it is split

  // first: of the group's instructions
  __device__ __forceinline__ void split_a(const float* tile, int first) {
#pragma unroll
    for (int k = first; k < first + kGroup; k++) {
      uint32_t raw[4];
      TileOfA::template load_four<true>(raw, tile, lane, 0, k);
      a[k].split(raw);
    }
  }

  __device__ __forceinline__ void multiply(MatrixDescriptor big, int first) {
    const MatrixDescriptor small = big + MatrixDescriptor(TileOfB::kElements * int(sizeof(float)) / 16);
    warpgroup_begin();
#pragma unroll
    for (int k = first; k < first + kGroup; k++) {
      const int step = k * kInstructionBytes;
      if (k == first) wgmma<float, false>(products, a[k].small, at_step(big, step));
      else wgmma<float>(products, a[k].small, at_step(big, step));
      wgmma<float>(products, a[k].big, at_step(small, step));
      wgmma<float>(products, a[k].big, at_step(big, step));
    }
    warpgroup_commit();
  }

  __device__ __forceinline__ void add_to(float (&sums)[n]) {
    warpgroup_wait_for(products);
#pragma unroll
    for (int i = 0; i < n; i++) sums[i] += products[i];
  }
};

template <class Tile, class Copy>
__device__ __forceinline__ void multiply_tiles_in_three(float (&sums)[Tile::N / 2], float* tiles, int count,
                                                        const Copy& copy) {
  using Stages = WarpgroupStages<float, Tile>;
  using TileOfA = typename Stages::A;
  using TileOfB = typename Stages::B;
  static_assert(Tile::ahead >= 2, "a tile is split before it is multiplied, and copied an iteration before");
  const int thread = int(threadIdx.x), lane = TileOfA::template lane_at<true>(thread / 32 * 16);
  const MatrixDescriptor first_b = shared_matrix(tiles + TileOfA::kElements);

  // The chunks that this thread copied: it need not meet the others before. Behind the wait for its copies
  const auto split_b = [&](float* tile) {
    using Wide = typename TileOfB::Wide;
    constexpr int kCopiers = copiers(Tile::N, Tile::threads);
    if (Tile::threads != kCopiers && thread >= kCopiers) return;
    float* const from = tile + TileOfA::kElements + TileOfB::at(Wide::first(), Wide::column());
    constexpr int kEvery = Wide::kEvery * TileOfB::kPitch;
    float4 b[Wide::kCount];
#pragma unroll
    for (int i = 0; i < Wide::kCount; i++) b[i] = load4(from + i * kEvery);
#pragma unroll
    for (int i = 0; i < Wide::kCount; i++)
      store_shared(from + TileOfB::kElements + i * kEvery,
                   Vector<float, 4>{{small_of_b(b[i].x), small_of_b(b[i].y), small_of_b(b[i].z), small_of_b(b[i].w)}});
  };

  ProductsOfThree<TileOfA, TileOfB, Tile::N / 2> three(lane);
  if (count == 0) return;
  async_wait<Tile::ahead - 1>();
  split_b(tiles);
  int full = 0, next = Stages::kElements, free = Tile::ahead * Stages::kElements;  // multiplied, split, copied to
  const auto meet = [&](int tile) {
    warpgroup_sees_writes();
    __syncthreads();  // this tile is there and split, and the products of the one in `free` are made
    three.split_a(tiles + tile, 0);
  };
  meet(full);
#pragma unroll 1
  for (int tile = 0; tile < count; tile++) {
    const MatrixDescriptor b = first_b + Stages::moved(full);
    three.multiply(b, 0);
    three.split_a(tiles + full, three.kGroup);
    if (tile + Tile::ahead < count) copy(tiles + free);
    async_commit();
    three.add_to(sums);
    three.multiply(b, three.kGroup);
    async_wait<Tile::ahead - 1>();
    if (tile + 1 < count) split_b(tiles + next);
    if (Tile::pending == 0) warpgroup_wait<0>();
    if (tile + 1 < count) meet(next);
    three.add_to(sums);
    full = next, next = Stages::behind(next), free = Stages::behind(free);
  }
}

}  // namespace convlab
