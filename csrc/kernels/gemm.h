// The one main loop of the ladder's matrix rungs: D[m, n] = sum over k of A[m, k] B[k, n], a block a tile of D.
//
// What A, B and D are is a Map's business (conv2d_as_gemm.h). It says where row m, column n and step k lie, and an
// element's address is the sum of two of these:
//
//   A[m, k] = a[row(m).a + step(k).a]
//   B[k, n] = b[column(n).b + step(k).b]  if column(n).h + step(k).h lies in [0, H) and column(n).w + step(k).w in [0,
//   W); else 0 D[m, n] = d[row(m).d + column(n).d]
//
// So every division is made once a row, once a column, or once a step, in a table in shared memory that the whole block
// reads: none in the loop. The coordinates h, w carry a convolution's padding.
//
// What it does    while a tile of A and one of B are multiplied out of shared memory, the next ones are already on
//                 their way into registers, and go to the other half of a double buffer: one barrier a tile. Loads are
//                 made whether there is a next tile or not (the table ends with steps that are outside): under an if,
//                 nvcc moves them behind the multiply-adds, and every tile waits for memory.
// What bounds it  with one output a thread, shared memory: two loads for one multiply-add. With 8 x 8 or 8 x 16 outputs
//                 a thread, issue slots: four of five instructions of the loop are multiply-adds, or six of seven.
#pragma once
#include "device/device.h"
#include "device/vector.h"
#include "dtype.h"
#include "kernels/plan.h"

namespace convlab {

// A TileShape as a type.
template <int kM, int kN, int kK, int kRows, int kColumns> struct Tile {
  static constexpr int M = kM, N = kN, K = kK, rows = kRows, columns = kColumns;
  static constexpr TileShape shape = {M, N, K, rows, columns};
  static constexpr int threads = shape.threads();
  static_assert(M % rows == 0 && N % columns == 0, "the threads cover the tile");
  static_assert(threads % K == 0 && threads % N == 0, "a thread loads from one column of A and one column of B");
  static_assert(M * K % threads == 0, "A is loaded without a remainder");
  static_assert(N * K % threads == 0 && N % (threads / K) == 0, "B is loaded without a remainder");
};

constexpr int kTableSteps = 256;  // steps tabled at a time: 16 bytes each, 4 KB
constexpr int kOutside = -(1 << 30);  // a coordinate outside every tensor, even with another such added to it

struct Step {
  int a, b;  // offsets from where the first step of the table lies
  int h, w;  // added to the column's coordinates; kOutside past the last step
};

struct Row {
  int a;
  long long d;
};

struct Column {
  long long b, d;
  int h, w;
};

// Which row (or column) of the tile is the i-th of a thread's. In fours, so that a thread reads them 16 bytes at a
// time, and neighbouring threads read neighbouring fours: no bank conflicts.
template <int kExtent, int kOwned> __device__ __forceinline__ int owned(int thread, int i) {
  if constexpr (kOwned % 4 == 0) return i / 4 * (kExtent / (kOwned / 4)) + thread * 4 + i % 4;
  else return i * (kExtent / kOwned) + thread;
}

template <int kExtent, int kOwned>
__device__ __forceinline__ void read_owned(float (&values)[kOwned], const float* shared, int thread) {
  if constexpr (kOwned % 4 == 0) {
#pragma unroll
    for (int i = 0; i < kOwned; i += 4) {
      const float4 four = load4(shared + owned<kExtent, kOwned>(thread, i));
      values[i] = four.x, values[i + 1] = four.y, values[i + 2] = four.z, values[i + 3] = four.w;
    }
  } else {
#pragma unroll
    for (int i = 0; i < kOwned; i++) values[i] = shared[owned<kExtent, kOwned>(thread, i)];
  }
}

// Makes sums[rows][columns], this thread's part of the tile whose first row is m0 and first column n0. `part` is what
// the Map gives this block to do: rows, columns, the steps [begin, end) and the tensors. If row_sums, the sums of A[m,
// k] over k are stored as well.
//
// Rows and columns past the edge load what the last one loads, and are not stored; steps past the end load zeros.
template <class Tile, class Part>
__device__ __forceinline__ void multiply(const Part& part, int m0, long long n0,
                                         float (&sums)[Tile::rows][Tile::columns], bool row_sums) {
  using T = typename Part::Element;
  constexpr int M = Tile::M, N = Tile::N, K = Tile::K, threads = Tile::threads;
  constexpr int kPad = 4;  // floats: the K steps of one row lie in different banks, and fours stay aligned
  SHARED(float, a_tiles, [2][K][M + kPad]);
  SHARED(float, b_tiles, [2][K][N + kPad]);
  SHARED(Step, steps, [kTableSteps + K]);
  const int tid = threadIdx.x;

  // A is loaded with consecutive threads along the steps. B is loaded along whichever is contiguous in memory: steps,
  // and then the columns a thread loads from come from a table; or columns, and then a thread has one of its own.
  constexpr bool kAlongSteps = Part::kStepsAlongLanes;
  constexpr int kLoadsA = M * K / threads, kLoadsB = N * K / threads;
  const int a_step = tid % K, a_row = tid / K;
  const int b_step = kAlongSteps ? tid % K : tid / N, b_column = kAlongSteps ? tid / K : tid % N;
  const auto row_of_load = [&](int i) { return a_row + i * (threads / K); };
  const auto step_of_load = [&](int i) { return kAlongSteps ? b_step : b_step + i * (threads / N); };
  const auto column_of_load = [&](int i) { return kAlongSteps ? b_column + i * (threads / K) : b_column; };

  SHARED(int, row_places, [M]);
  for (int i = tid; i < M; i += threads) row_places[i] = part.row(min(m0 + i, part.rows - 1)).a;
  const Column column = part.column(min(n0 + b_column, part.columns - 1));
  SHARED(Step, places, [kAlongSteps ? N : 1]);
  if constexpr (kAlongSteps)
    for (int i = tid; i < N; i += threads) {
      const Column c = part.column(min(n0 + i, part.columns - 1));
      places[i] = Step{0, int(c.b), c.h, c.w};
    }

  const T* column_b = kAlongSteps ? nullptr : settled(part.b(part.begin) + column.b);

  float a_next[kLoadsA], b_next[kLoadsB], sums_a[kLoadsA] = {};
  const int ty = tid / (N / Tile::columns), tx = tid % (N / Tile::columns);
#pragma unroll
  for (int i = 0; i < Tile::rows; i++)
#pragma unroll
    for (int j = 0; j < Tile::columns; j++) sums[i][j] = 0;

  const int tables = int((part.end - part.begin + kTableSteps - 1) / kTableSteps);
  for (int table = 0; table < tables; table++) {
    const long long k0 = part.begin + (long long)table * kTableSteps;
    const int count = int(min(part.end - k0, (long long)kTableSteps));
    for (int i = tid; i < kTableSteps + K; i += threads)
      steps[i] = i < count ? part.step(k0, i) : Step{0, 0, kOutside, kOutside};
    __syncthreads();
    const T* a = settled(part.a(k0));
    const T* b = kAlongSteps ? settled(part.b(k0)) : column_b;

    const auto load = [&](int tile) {
      const Step sa = steps[tile * K + a_step];
#pragma unroll
      for (int i = 0; i < kLoadsA; i++) a_next[i] = load_if(sa.h != kOutside, a + (row_places[row_of_load(i)] + sa.a));
#pragma unroll
      for (int i = 0; i < kLoadsB; i++) {
        const Step s = kAlongSteps ? sa : steps[tile * K + step_of_load(i)];
        const Step c = kAlongSteps ? places[column_of_load(i)] : Step{0, 0, column.h, column.w};
        const bool inside =
            unsigned(c.h + s.h) < unsigned(part.bounds_h) && unsigned(c.w + s.w) < unsigned(part.bounds_w);
        b_next[i] = load_if(inside, b + (c.b + s.b));
      }
      if (row_sums) {
#pragma unroll
        for (int i = 0; i < kLoadsA; i++) sums_a[i] += a_next[i];
      }
    };
    const auto store = [&](int half) {
#pragma unroll
      for (int i = 0; i < kLoadsA; i++) a_tiles[half][a_step][row_of_load(i)] = a_next[i];
#pragma unroll
      for (int i = 0; i < kLoadsB; i++) b_tiles[half][step_of_load(i)][column_of_load(i)] = b_next[i];
    };

    const int tiles = (count + K - 1) / K;
    for (int tile = 0; tile <= tiles; tile++) {
      load(tile);
      if (tile > 0) {
        const int half = (tile - 1) & 1;
#pragma unroll
        for (int k = 0; k < K; k++) {
          float fa[Tile::rows], fb[Tile::columns];
          read_owned<M>(fa, a_tiles[half][k], ty);
          read_owned<N>(fb, b_tiles[half][k], tx);
#pragma unroll
          for (int i = 0; i < Tile::rows; i++)
#pragma unroll
            for (int j = 0; j < Tile::columns; j++) sums[i][j] += fa[i] * fb[j];
        }
      }
      store(tile & 1);
      __syncthreads();
    }
  }

  if (row_sums) {
#pragma unroll
    for (int i = 0; i < kLoadsA; i++) {
      float sum = sums_a[i];
      for (int apart = K / 2; apart > 0; apart /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, apart);
      if (a_step == 0 && m0 + row_of_load(i) < part.rows) part.store_row_sum(m0 + row_of_load(i), sum);
    }
  }
}

// grid (ceil(columns / N), ceil(rows / M), parts)
template <class Tile, class Map>
__global__ void __launch_bounds__(Tile::threads, Tile::shape.blocks_at_once())
    gemm_kernel(const __grid_constant__ Map map) {
  SHARED(typename Map::Part, shared_part, [1]);  // in shared memory, because the loop needs the registers
  if (threadIdx.x == 0) shared_part[0] = map.part(blockIdx.z);
  __syncthreads();
  const auto& part = shared_part[0];
  const int m0 = blockIdx.y * Tile::M;
  const long long n0 = (long long)blockIdx.x * Tile::N;
  if (n0 >= part.columns) return;  // parts may differ in columns; all have the same rows

  float sums[Tile::rows][Tile::columns];
  multiply<Tile>(part, m0, n0, sums, part.wants_row_sums && blockIdx.x == 0);

  const int ty = threadIdx.x / (Tile::N / Tile::columns), tx = threadIdx.x % (Tile::N / Tile::columns);
  const auto each_row = [&](const auto& store) {
#pragma unroll
    for (int i = 0; i < Tile::rows; i++) {
      const int m = m0 + owned<Tile::M, Tile::rows>(ty, i);
      if (m < part.rows) store(i, m);
    }
  };
  if constexpr (Tile::columns % 4 == 0) {
    if (part.fours) {  // a thread's columns are neighbours in fours
#pragma unroll
      for (int j = 0; j < Tile::columns; j += 4) {
        const long long n = n0 + owned<Tile::N, Tile::columns>(tx, j);
        if (n >= part.columns) continue;
        const long long column = part.column(n).d;
        each_row([&](int i, int m) { part.store4(m, part.row(m).d + column, sums[i] + j); });
      }
      return;
    }
  }
#pragma unroll
  for (int j = 0; j < Tile::columns; j++) {
    const long long n = n0 + owned<Tile::N, Tile::columns>(tx, j);
    if (n >= part.columns) continue;
    const long long column = part.column(n).d;
    each_row([&](int i, int m) { part.store(m, part.row(m).d + column, sums[i][j]); });
  }
}

}  // namespace convlab
