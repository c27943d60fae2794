// The one main loop of the ladder's matrix rungs: D[m, n] = sum over k of A[m, k] B[k, n], a block a tile of D.
//
// What A, B and D are is a Map's business (conv2d_as_gemm.h). It says where row m, column n and step k lie, and an
// element's address is the sum of two of these:
//
//   A[m, k] = a[row(m).a + step(k).a]
//   B[k, n] = b[column(n).b + step(k).b]    where column(n).h + step(k).h lies in [0, H) and column(n).w + step(k).w
//                                           in [0, W); 0 elsewhere
//   D[m, n] = d[row(m).d + column(n).d]
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
#include "device/reduce.h"
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

  // Where this thread is among those that share the tile's outputs: threads of one row first.
  static __device__ __forceinline__ int thread_row() { return int(threadIdx.x) / (N / columns); }
  static __device__ __forceinline__ int thread_column() { return int(threadIdx.x) % (N / columns); }
};

constexpr int kTableSteps = 256;  // steps tabled at a time: 16 bytes each, 4 KB
constexpr int kOutside = -(1 << 30);  // a coordinate outside every tensor, even with another such added to it

struct Step {
  int a, b;  // offsets from where the first step of the table lies
  int h, w;  // added to the column's coordinates; kOutside past the last step
};

struct Row {
  int a, d;
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

// A tile of A and one of B in shared memory.
constexpr int kPad = 4;  // floats: the K steps of one row lie in different banks, and fours stay aligned
template <class Tile> using TileOfA = float[Tile::K][Tile::M + kPad];
template <class Tile> using TileOfB = float[Tile::K][Tile::N + kPad];

// This thread's outputs, sums[rows][columns], grow by the products of one tile of A and one of B.
template <class Tile>
__device__ __forceinline__ void add_products(float (&sums)[Tile::rows][Tile::columns], const TileOfA<Tile>& a,
                                             const TileOfB<Tile>& b) {
#pragma unroll
  for (int k = 0; k < Tile::K; k++) {
    float fa[Tile::rows], fb[Tile::columns];
    read_owned<Tile::M>(fa, a[k], Tile::thread_row());
    read_owned<Tile::N>(fb, b[k], Tile::thread_column());
#pragma unroll
    for (int i = 0; i < Tile::rows; i++)
#pragma unroll
      for (int j = 0; j < Tile::columns; j++) sums[i][j] += fa[i] * fb[j];
  }
}

// What one thread carries of the tiles of A and B: from device memory into its registers (load), and from there to
// shared memory (store).
//
// A is loaded with consecutive threads along the steps. B is loaded along whichever is contiguous in memory: steps, and
// then the columns a thread loads from come from a table; or columns, and then a thread has one of its own.
//
// Rows and columns past the edge load what the last one loads, and are not stored; steps past the end load zeros.
template <class Tile, class Part> struct Carrier {
  using T = typename Part::Element;
  static constexpr bool kAlongSteps = Part::kStepsAlongLanes;
  static constexpr int M = Tile::M, N = Tile::N, K = Tile::K, threads = Tile::threads;
  static constexpr int kLoadsA = M * K / threads, kLoadsB = N * K / threads;
  using RowTable = int[M];  // row(m).a
  using ColumnTable = Step[kAlongSteps ? N : 1];

  const Part& part;
  const int m0;
  const RowTable& rows;
  const ColumnTable& columns;
  Column column;  // its own, unless kAlongSteps
  const T *a, *b;  // where the first step of the table lies
  float a_next[kLoadsA], b_next[kLoadsB], sums_a[kLoadsA] = {};

  // What the i-th of this thread's loads from a tile brings: A[row_of(i), step_of_a()] and B[step_of(i), column_of(i)].
  static __device__ __forceinline__ int row_of(int i) { return int(threadIdx.x) / K + i * (threads / K); }
  static __device__ __forceinline__ int step_of_a() { return int(threadIdx.x) % K; }
  static __device__ __forceinline__ int step_of(int i) {
    return kAlongSteps ? step_of_a() : int(threadIdx.x) / N + i * (threads / N);
  }
  static __device__ __forceinline__ int column_of(int i) { return kAlongSteps ? row_of(i) : int(threadIdx.x) % N; }

  // Makes the tables, which the block may read behind a barrier. A thread has one or two of their places: copies of what
  // makes them, with its divisions, gain nothing.
  __device__ __forceinline__ Carrier(const Part& part, int m0, long long n0, RowTable& rows, ColumnTable& columns)
      : part(part), m0(m0), rows(rows), columns(columns) {
#pragma unroll 1
    for (int i = int(threadIdx.x); i < M; i += threads) rows[i] = part.row(min(m0 + i, part.rows - 1)).a;
    if constexpr (kAlongSteps) {
#pragma unroll 1
      for (int i = int(threadIdx.x); i < N; i += threads) {
        const Column c = part.column(min(n0 + i, part.columns - 1));
        columns[i] = Step{0, int(c.b), c.h, c.w};
      }
    } else {
      column = part.column(min(n0 + column_of(0), part.columns - 1));
      b = settled(part.b(part.begin) + column.b);
    }
  }

  // From now on, steps count from k0.
  __device__ __forceinline__ void begin_table(long long k0) {
    a = settled(part.a(k0));
    if constexpr (kAlongSteps) b = settled(part.b(k0));
  }

  // steps: the tile's, K of them
  __device__ __forceinline__ void load(const Step* steps) {
    const Step sa = steps[step_of_a()];
#pragma unroll
    for (int i = 0; i < kLoadsA; i++) a_next[i] = load_if(sa.h != kOutside, a + (rows[row_of(i)] + sa.a));
#pragma unroll
    for (int i = 0; i < kLoadsB; i++) {
      const Step s = kAlongSteps ? sa : steps[step_of(i)];
      const Step c = kAlongSteps ? columns[column_of(i)] : Step{0, 0, column.h, column.w};
      const bool inside =
          unsigned(c.h + s.h) < unsigned(part.bounds_h) && unsigned(c.w + s.w) < unsigned(part.bounds_w);
      b_next[i] = load_if(inside, b + (c.b + s.b));
    }
  }

  __device__ __forceinline__ void store(TileOfA<Tile>& a_tile, TileOfB<Tile>& b_tile) const {
#pragma unroll
    for (int i = 0; i < kLoadsA; i++) a_tile[step_of_a()][row_of(i)] = a_next[i];
#pragma unroll
    for (int i = 0; i < kLoadsB; i++) b_tile[step_of(i)][column_of(i)] = b_next[i];
  }

  // The sums of A's rows: of what this thread has loaded, and, once all is, of the K threads that loaded from a row.
  __device__ __forceinline__ void add_rows() {
#pragma unroll
    for (int i = 0; i < kLoadsA; i++) sums_a[i] += a_next[i];
  }
  __device__ __forceinline__ void store_row_sums() const {
#pragma unroll
    for (int i = 0; i < kLoadsA; i++) {
      const float sum = lanes_sum<K>(sums_a[i]);
      if (step_of_a() == 0 && m0 + row_of(i) < part.rows) part.store_row_sum(m0 + row_of(i), sum);
    }
  }
};

// Makes sums[rows][columns], this thread's part of the tile whose first row is m0 and first column n0. `part` is what
// the Map gives this block to do: rows, columns, the steps [begin, end) and the tensors. If row_sums, the sums of
// A[m, k] over k are stored as well.
template <class Tile, class Part>
__device__ __forceinline__ void multiply(const Part& part, int m0, long long n0,
                                         float (&sums)[Tile::rows][Tile::columns], bool row_sums) {
  constexpr int K = Tile::K;
  SHARED(float, a_tiles, [2][K][Tile::M + kPad]);
  SHARED(float, b_tiles, [2][K][Tile::N + kPad]);
  SHARED(Step, steps, [kTableSteps + K]);
  SHARED(int, rows, [Tile::M]);
  SHARED(Step, columns, [Part::kStepsAlongLanes ? Tile::N : 1]);
  Carrier<Tile, Part> carrier(part, m0, n0, rows, columns);
#pragma unroll
  for (int i = 0; i < Tile::rows; i++)
#pragma unroll
    for (int j = 0; j < Tile::columns; j++) sums[i][j] = 0;

  const int tables = int((part.end - part.begin + kTableSteps - 1) / kTableSteps);
  for (int table = 0; table < tables; table++) {
    const long long k0 = part.begin + (long long)table * kTableSteps;
    const int count = int(min(part.end - k0, (long long)kTableSteps));
#pragma unroll 1
    for (int i = int(threadIdx.x); i < kTableSteps + K; i += Tile::threads)
      steps[i] = i < count ? part.step(k0, i) : Step{0, 0, kOutside, kOutside};
    __syncthreads();
    carrier.begin_table(k0);

    const int tiles = (count + K - 1) / K;
    for (int tile = 0; tile <= tiles; tile++) {
      carrier.load(steps + tile * K);
      if (row_sums) carrier.add_rows();
      if (tile > 0) add_products<Tile>(sums, a_tiles[(tile - 1) & 1], b_tiles[(tile - 1) & 1]);
      carrier.store(a_tiles[tile & 1], b_tiles[tile & 1]);
      __syncthreads();
    }
  }
  if (row_sums) carrier.store_row_sums();
}

// Stores those of this thread's outputs that exist, kTogether neighbouring columns at a time. What rows have in common is
// made beforehand, of a copy of `part`: behind each store nvcc would make it anew.
template <class Tile, int kTogether, class Part>
__device__ __forceinline__ void store_sums(const Part part, int m0, long long n0,
                                           const float (&sums)[Tile::rows][Tile::columns]) {
  int rows[Tile::rows];  // where they lie, which gemm_can() lets fit; -1 where there is none
  float add[Tile::rows];
#pragma unroll
  for (int i = 0; i < Tile::rows; i++) {
    const int m = m0 + owned<Tile::M, Tile::rows>(Tile::thread_row(), i);
    const bool is = m < part.rows;
    rows[i] = is ? part.row(m).d : -1, add[i] = is ? part.add(m) : 0.0f;
  }
#pragma unroll
  for (int j = 0; j < Tile::columns; j += kTogether) {
    const long long n = n0 + owned<Tile::N, Tile::columns>(Tile::thread_column(), j);
    if (n >= part.columns) continue;
    const long long column = part.column(n).d;
#pragma unroll
    for (int i = 0; i < Tile::rows; i++) {
      if (rows[i] < 0) continue;
      Vector<float, kTogether> out;
#pragma unroll
      for (int e = 0; e < kTogether; e++) out.at[e] = sums[i][j + e] + add[i];
      part.store(column + unsigned(rows[i]), out);
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
  if constexpr (Tile::columns % 4 == 0)
    if (part.fours) return store_sums<Tile, 4>(part, m0, n0, sums);  // a thread's columns are neighbours in fours
  store_sums<Tile, 1>(part, m0, n0, sums);
}

}  // namespace convlab
