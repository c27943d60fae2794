// The main loop of the warpgroup rung's wgrad: rows and columns, filters and the channels of taps, lie side by side in dy
// and x, and so they do in tiles, which wgmma reads as they are.
//
//   dw[k][tap, c] = sum over the positions n, p, q of dy[n, p, q][k] x[n, p + r, q + s][c]
//
// A tile of an operand is [lines / 64][steps][64 lines], a step of 64 lines 128 bytes, its chunks exchanged by an XOR with
// the step's number. A thread copies one chunk of each 64 lines in every so many steps, so it always has the same lines, and
// walks along the positions with additions alone. Otherwise the loop is that of warpgroup_tile.h.
#pragma once
#include "kernels/conv2d_as_mma.h"
#include "kernels/warpgroup_tile.h"

namespace convlab {

// A block makes kM x kN, a warpgroup 64 rows of it. kPending: groups of products under way when the block waits for the
// next tile; they keep their tiles that long. kBlocks: as WarpTile. kSplits: float32 is split in two.
template <int kM, int kN, int kK, int kStages, int kPending, int kBlocks, bool kSplits = false> struct WgradTile {
  static constexpr int M = kM, N = kN, K = kK, stages = kStages, pending = kPending, blocks = kBlocks;
  static constexpr bool splits = kSplits;
  static constexpr int threads = M / kWarpgroupRows * kWarpgroupThreads, ahead = stages - 1 - pending;
  static_assert(M % kWarpgroupRows == 0 && ahead > 0);
};

// How the copies of a tile of so many lines are shared by the threads
template <class T, int kLines, int kThreads> struct LinesTile {
  static constexpr int kSteps = kStepBytes / int(sizeof(T)), kTogether = kSteps;  // lines of a step's 128 bytes
  static constexpr int kChunk = kChunkBytes / int(sizeof(T)), kAcross = kTogether / kChunk;
  static constexpr int kBlocks = kLines / kTogether, kBlock = kSteps * kTogether, kElements = kBlocks * kBlock;
  static constexpr int kEvery = kThreads / kAcross, kCount = kSteps / kEvery;
  static_assert(sizeof(T) == 2 && kLines % kTogether == 0 && kSteps % kEvery == 0 && kEvery % 8 == 0);

  static __device__ __forceinline__ int line() { return int(threadIdx.x) % kAcross * kChunk; }  // the first
  static __device__ __forceinline__ int step() { return int(threadIdx.x) / kAcross; }
  static __device__ __forceinline__ int at(int line, int step) {
    return line / kTogether * kBlock + step * kTogether + (line % kTogether / kChunk ^ step % 8) * kChunk +
           line % kChunk;
  }
};

// What is added to a position among outputs to advance it by so many, and again where it leaves a row or a plane; in
// shared memory, because the loop needs the registers.
struct OutputSteps {
  long long dy, x, row_x, plane_x;  // elements
  int every, h, w, row_h, row_w, plane_h, end_h, end_w;  // of the input

  template <class Part> static __device__ OutputSteps of(const Part& part, int every) {
    const Conv2d& g = part.g;
    const int plane = g.P * g.Q, p = every % plane / g.Q, q = every % g.Q;
    const long long pixel = part.of_x.pixel, row = g.W * pixel;
    OutputSteps s;
    s.every = every, s.h = p * g.stride_h, s.w = q * g.stride_w;
    s.dy = every * part.of_dy.pixel, s.x = every / plane * part.of_x.image + s.h * row + s.w * pixel;
    s.row_h = g.stride_h, s.row_w = g.Q * g.stride_w, s.row_x = s.row_h * row - s.row_w * pixel;
    s.plane_h = g.P * g.stride_h, s.plane_x = part.of_x.image - s.plane_h * row;
    s.end_h = s.plane_h - g.pad_h, s.end_w = s.row_w - g.pad_w;
    return s;
  }
};

// A thread's position among outputs. x, h, w: of the input that the first tap has there.
template <class T> struct OutputWalk {
  const T *dy, *x;
  int h, w, left;  // left: positions of the slice, from this one on

  template <class Part> __device__ __forceinline__ OutputWalk(const Part& part, int step, int K) {
    Position a, b;
    part.step(0, step, K, a, b);
    dy = part.a_base + a.offset, x = part.b_base + b.offset, h = b.h, w = b.w, left = part.steps - step;
  }
  // end_h, end_w: of the thread's tap
  __device__ __forceinline__ void advance(const OutputSteps& by, int end_h, int end_w) {
    left -= by.every, dy += by.dy, x += by.x, h += by.h, w += by.w;
    if (w >= end_w) w -= by.row_w, h += by.row_h, x += by.row_x;
    if (h >= end_h) h -= by.plane_h, x += by.plane_x;
  }
};

// The sums of dy's lines over the positions, for the bias: a thread has two lines and a quarter of a tile's steps.
template <class T, class Tile, class TileOfA> struct LineSums {
  static constexpr int kPairs = Tile::M / 2, kParts = Tile::threads / kPairs, kSteps = Tile::K / kParts;
  float sum[2] = {0, 0}, lost[2] = {0, 0};

  __device__ __forceinline__ void add(const T* tile) {
    const int pair = int(threadIdx.x) % kPairs, part = int(threadIdx.x) / kPairs;
    float of_tile[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < kSteps; i++) {
      const Vector<T, 2> both = load_vector<2>(tile + TileOfA::at(2 * pair, part * kSteps + i));
#pragma unroll
      for (int j = 0; j < 2; j++) of_tile[j] += float(both.at[j]);
    }
#pragma unroll
    for (int j = 0; j < 2; j++) {  // Kahan: a slice has thousands of tiles
      const float before = sum[j], more = of_tile[j] - lost[j];
      sum[j] = before + more, lost[j] = (sum[j] - before) - more;
    }
  }
  // parts: [kParts][M] in shared memory, which all threads may write
  template <class Part> __device__ __forceinline__ void store(float* parts, const Part& part, long long m0) const {
    const int thread = int(threadIdx.x);
    store_shared(parts + thread / kPairs * Tile::M + thread % kPairs * 2, Vector<float, 2>{{sum[0], sum[1]}});
    __syncthreads();
    if (thread < Tile::M && m0 + thread < part.rows) {
      float all = 0;
#pragma unroll
      for (int i = 0; i < kParts; i++) all += parts[i * Tile::M + thread];
      part.store_line_sum(m0 + thread, all);
    }
    __syncthreads();
  }
};

// Makes the block's tile whose first row is m0 and first column n0. `part` is what FilterMap gives this block to do.
template <class T, class Tile, class Part>
__device__ __forceinline__ void multiply_filter(const Part& part, const OutputSteps& by, long long m0, long long n0) {
  constexpr int K = Tile::K;
  using TileOfA = LinesTile<T, Tile::M, Tile::threads>;
  using TileOfB = LinesTile<T, Tile::N, Tile::threads>;
  static_assert(K == TileOfA::kSteps);
  DYNAMIC_SHARED(T, unaligned);  // [stages][A, B], and in the end [M][N] sums, from a multiple of 1024 bytes on
  T* const tiles = on_swizzle_boundary(unaligned);
  SHARED(Lines<Tile>, lines, [1]);
  const int thread = int(threadIdx.x);
#pragma unroll 1
  for (int i = thread; i < Tile::M; i += Tile::threads) {
    Position unused;
    part.row(m0 + i, unused, lines[0].row[i]);
  }
#pragma unroll 1
  for (int i = thread; i < Tile::N; i += Tile::threads) {
    Position unused;
    part.column(n0 + i, unused, lines[0].column[i]);
    lines[0].bias[i] = 0;
  }

  // This thread's lines: one chunk of each 64
  const int line = TileOfA::line(), count = part.tiles(K);
  const int dy_there =
      int(min((part.rows - m0 - line + TileOfA::kTogether - 1) / TileOfA::kTogether, (long long)TileOfA::kBlocks));
  int x_chunk[TileOfB::kBlocks], x_h[TileOfB::kBlocks], x_w[TileOfB::kBlocks];  // chunks from the first tap's first
#pragma unroll
  for (int j = 0; j < TileOfB::kBlocks; j++) {
    Position tap;
    long long unused;
    part.column(n0 + j * TileOfB::kTogether + line, tap, unused);
    x_chunk[j] = int(tap.offset / TileOfB::kChunk), x_h[j] = tap.h, x_w[j] = tap.w;
  }
  OutputWalk<T> walk(part, TileOfA::step(), K);
  walk.dy += m0 + line;
  const int b_h = part.b_h, b_w = part.b_w, first = TileOfA::at(line, TileOfA::step());
  const auto copy = [&](T* tile) {
#pragma unroll
    for (int i = 0; i < TileOfA::kCount; i++) {
      T* const to = tile + first + i * TileOfA::kEvery * TileOfA::kTogether;
      const int there = walk.left > 0 ? dy_there : 0, at_h = walk.left > 0 ? walk.h : kFarOutside;
#pragma unroll
      for (int j = 0; j < TileOfA::kBlocks; j++)
        async_copy<kChunkBytes>(to + j * TileOfA::kBlock, walk.dy + j * TileOfA::kTogether,
                                j < there ? kChunkBytes : 0);
#pragma unroll
      for (int j = 0; j < TileOfB::kBlocks; j++) {
        const bool inside = unsigned(x_h[j] + at_h) < unsigned(b_h) && unsigned(x_w[j] + walk.w) < unsigned(b_w);
        async_copy<kChunkBytes>(to + TileOfA::kElements + j * TileOfB::kBlock,
                                walk.x + (long long)x_chunk[j] * TileOfB::kChunk, inside ? kChunkBytes : 0);
      }
      walk.advance(by, by.end_h, by.end_w);
    }
  };

  constexpr int kElements = TileOfA::kElements + TileOfB::kElements, kEnd = Tile::stages * kElements;
#pragma unroll
  for (int i = 0; i < Tile::ahead; i++) {
    if (i < count) copy(tiles + i * kElements);
    async_commit();
  }

  float sums[Tile::N / 2];
#pragma unroll
  for (int i = 0; i < Tile::N / 2; i++) sums[i] = 0;
  LineSums<T, Tile, TileOfA> line_sums;
  const bool sums_lines = part.wants_line_sums && n0 == 0;
  const MatrixDescriptor first_a =
      shared_lines(tiles + warpgroup_of_thread() * TileOfA::kBlock, TileOfA::kBlock * int(sizeof(T)));
  const MatrixDescriptor first_b = shared_lines(tiles + TileOfA::kElements, TileOfB::kBlock * int(sizeof(T)));
  int full = 0, free = Tile::ahead * kElements;  // where the tile is that is multiplied, and the one that is copied to
#pragma unroll 1
  for (int tile = 0; tile < count; tile++) {
    async_wait<Tile::ahead - 1>();
    warpgroup_sees_writes();
    __syncthreads();  // this tile is there, and the products of the one that lay in `free` are made
    const MatrixDescriptor moved = full * int(sizeof(T)) / 16, a = first_a + moved, b = first_b + moved;
    warpgroup_begin();
#pragma unroll
    for (int k = 0; k < K; k += K / kInstructions) wgmma_lines<T>(sums, at_step_of_lines(a, k), at_step_of_lines(b, k));
    warpgroup_commit();
    if (tile + Tile::ahead < count) copy(tiles + free);
    async_commit();
    if (sums_lines) line_sums.add(tiles + full);
    full = full + kElements == kEnd ? 0 : full + kElements;
    free = free + kElements == kEnd ? 0 : free + kElements;
    warpgroup_wait<Tile::pending>();
  }
  warpgroup_wait_for(sums);
  async_wait<0>();

  __syncthreads();  // nobody reads the tiles
  float* all = reinterpret_cast<float*>(tiles);
  if (sums_lines) line_sums.store(all, part, m0);
  write_sums<Tile>(all, sums);
  __syncthreads();
  store_sums<Tile>(part, lines[0], all);
}

// grid (ceil(rows / M), ceil(columns / N), parts)
template <class T, class Tile, class Map>
__global__ void __launch_bounds__(Tile::threads, Tile::blocks)
    warpgroup_filter_kernel(const __grid_constant__ Map map) {
  SHARED(typename Map::Part, part, [1]);  // in shared memory, because the loop needs the registers
  SHARED(OutputSteps, by, [1]);
  if (threadIdx.x == 0) {
    part[0] = map.part(blockIdx.z);
    by[0] = OutputSteps::of(part[0], LinesTile<T, Tile::M, Tile::threads>::kEvery);
  }
  __syncthreads();
  multiply_filter<T, Tile>(part[0], by[0], (long long)blockIdx.x * Tile::M, (long long)blockIdx.y * Tile::N);
}

}  // namespace convlab
