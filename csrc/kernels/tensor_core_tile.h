// The one main loop of the tensor_core rung: D[m, n] = sum over k of A[m, k] B[k, n] by mma.sync. A block makes a tile of
// D, a warp a part of that tile.
//
// What A, B and D are is a Map's business (conv2d_as_mma.h), as in gemm.h: every row m, column n and step k has a Position
// in the tensor that A or B is read from, and an element lies at the sum of two of them; 0 outside the tensor.
//
// A tile of A is [M][steps] in shared memory where steps lie side by side in the tensor (kLinesInner false), or
// [steps][M] where rows do; so is a tile of B. Either way it moves in chunks of 16 bytes where the tensor lets it
// ("wide"), and else an element at a time, by cp.async, which leaves zeros where the position is outside. kStages tiles
// are on their way or in use: one wait and one barrier a tile.
//
// Where steps lie side by side a row of a tile is 128 bytes, and its chunks are exchanged ("swizzled") by an XOR with the
// row's number; where lines do, rows are a chunk or two longer than their contents. Either way neither the copies, nor
// ldmatrix, which reads a chunk of 8 rows, nor the 4-byte loads of tf32 have bank conflicts.
#pragma once
#include <bit>
#include <numeric>
#include <type_traits>

#include "device/async_copy.h"
#include "device/device.h"
#include "device/mma.h"
#include "device/shared_store.h"
#include "device/vector.h"
#include "kernels/tensor_core_products.h"

namespace convlab {

// Where a row, a column or a step lies: elements from the tensor's part, and coordinates that say whether it is inside.
struct alignas(16) Position {
  long long offset;
  int h, w;
};
__device__ __forceinline__ Position read(const Position* p) { return load_vector<1>(p).at[0]; }
__device__ __forceinline__ void write(Position* p, Position position) {
  store_shared(p, Vector<Position, 1>{{position}});
}
constexpr int kFarOutside = -(1 << 30);  // a coordinate outside every tensor, even with another such added to it

constexpr int kChunkBytes = 16, kStepBytes = 128;  // a row of a tile whose steps lie side by side
constexpr int kInstructionBytes = 32;  // steps of an mma: 8 of tf32, 16 of 16 bits
constexpr int kPaddedLines = 8;  // between rows of a tile whose lines lie side by side
constexpr int kInstructions = kStepBytes / kInstructionBytes;  // along the steps of a tile
constexpr int kNarrow = 16;  // columns of a tile for few

// A block makes kM x kN, a warp kWarpM x kWarpN. kBlocks: how many a multiprocessor should have registers for.
template <int kM, int kN, int kK, int kWarpM, int kWarpN, int kDepth, int kBlocks> struct WarpTile {
  static constexpr int M = kM, N = kN, K = kK, warp_m = kWarpM, warp_n = kWarpN, stages = kDepth, blocks = kBlocks;
  static constexpr int threads = (M / warp_m) * (N / warp_n) * 32;
  static constexpr bool past_l1 = N > kNarrow;  // A's copies. Beside few columns they take longest, and taps overlap.
  static_assert(warp_m % 16 == 0, "fragments of A are of 16 rows");
  static_assert(warp_n == 16 || warp_n % 32 == 0, "fragments of B are loaded in twos, and sums exchanged within 32");
  static __device__ __forceinline__ int warp_row() { return int(threadIdx.x) / 32 / (N / warp_n) * warp_m; }
  static __device__ __forceinline__ int warp_column() { return int(threadIdx.x) / 32 % (N / warp_n) * warp_n; }
};

// ---- a tile of A or B in shared memory ----

// kLines: its rows (of A) or columns (of B)
template <class T, int kLines, bool kInner, int kThreads> struct OperandTile {
  static constexpr bool kLinesInner = kInner;
  static constexpr int kChunk = kChunkBytes / int(sizeof(T)), kSteps = kStepBytes / int(sizeof(T));
  static constexpr int kRows = kLinesInner ? kSteps : kLines, kColumns = kLinesInner ? kLines : kSteps;
  static constexpr int kChunks = kColumns / kChunk;  // a row
  static_assert(kChunks % 8 == 0);

  // 4 rows of 8 elements, or 8 rows of a chunk, are in different banks
  static constexpr int kPitch = kLinesInner ? kColumns + kPaddedLines : kColumns;
  static constexpr int kElements = kRows * kPitch;

  // Where element `column` of a row is; a chunk's elements stay together.
  static __device__ __forceinline__ int at(int row, int column) {
    if constexpr (kLinesInner) return row * kPitch + column;
    else return row * kPitch + ((column / kChunk ^ (row & 7)) * kChunk + column % kChunk);
  }

  // Where tables keep the positions of line i and of step i. Inner ones are exchanged within eights, so that neither those
  // of neighbouring chunks nor of neighbouring elements have bank conflicts.
  static __device__ __forceinline__ int line_at(int i) { return kLinesInner ? i ^ i / 8 % 8 : i; }
  static __device__ __forceinline__ int step_at(int i) { return kLinesInner ? i : i ^ i / 8 % 8; }

  // How a thread's copies of kWidth elements lie: neighbouring threads take neighbours of a row, and a thread has one
  // column in all of its rows.
  template <int kWidth> struct Copies {
    static constexpr int kBytes = kWidth * int(sizeof(T)), kAcross = kColumns / kWidth, kEvery = kThreads / kAcross;
    static constexpr int kCount = kRows / kEvery;
    static_assert(kThreads % kAcross == 0 && kRows % kEvery == 0);
    static __device__ __forceinline__ int first() { return int(threadIdx.x) / kAcross; }
    static __device__ __forceinline__ int column() { return int(threadIdx.x) % kAcross * kWidth; }
  };
  using Wide = Copies<kChunk>;

  // What a thread adds the positions of its rows to: its column's, and where it lies.
  struct Column {
    const T* from;
    int h, w;
  };
  // kLinesInner: of all tiles; else of the one whose steps are given
  static __device__ __forceinline__ Column column_of(const T* from, const Position* lines, const Position* steps,
                                                     bool wide) {
    const int column = wide || sizeof(T) == 2 ? Wide::column() : Copies<1>::column();
    const Position p = kLinesInner ? read(lines + line_at(column)) : read(steps + step_at(column));
    return {from + p.offset, p.h, p.w};
  }

  // Starts the copies of one tile, by tables: its lines' and steps' positions are in shared memory. kOne: there is one
  // coordinate to be tested, not two.
  template <bool kOne>
  static __device__ __forceinline__ void copy(T* tile, const Column& mine, const Position* lines, const Position* steps,
                                              int bounds_h, int bounds_w, bool wide) {
    const Position* outer = kLinesInner ? steps : lines;
    if (sizeof(T) == 2 || wide) copy_by<kChunk, kOne>(tile, mine, outer, bounds_h, bounds_w);
    else if constexpr (sizeof(T) == 4) copy_by<1, kOne>(tile, mine, outer, bounds_h, bounds_w);
  }

  template <int kWidth, bool kOne>
  static __device__ __forceinline__ void copy_by(T* tile, const Column& mine, const Position* outer, int bounds_h,
                                                 int bounds_w) {
    using C = Copies<kWidth>;
    constexpr int kAtOnce = C::kCount < 8 ? C::kCount : 8;  // positions in registers, so that no copy waits for its own
    outer += C::first();
#pragma unroll 1
    for (int i = 0; i < C::kCount; i += kAtOnce) {
      Position other[kAtOnce];
#pragma unroll
      for (int j = 0; j < kAtOnce; j++) other[j] = read(outer + (i + j) * C::kEvery);
#pragma unroll
      for (int j = 0; j < kAtOnce; j++) {
        const bool inside = unsigned(mine.h + other[j].h) < unsigned(bounds_h) &&
                            (kOne || unsigned(mine.w + other[j].w) < unsigned(bounds_w));
        async_copy<C::kBytes>(tile + at((i + j) * C::kEvery + C::first(), C::column()), mine.from + other[j].offset,
                              inside ? C::kBytes : 0);
      }
    }
  }

  // A thread's lines of a tile whose steps lie side by side, of an image. offset: in chunks, from the block's first line.
  struct ImageLines {
    int offset[Wide::kCount], h[Wide::kCount], w[Wide::kCount];

    explicit __device__ __forceinline__ ImageLines(const Position* lines) {
      const long long origin = read(lines).offset;
#pragma unroll
      for (int i = 0; i < Wide::kCount; i++) {
        const Position line = read(lines + i * Wide::kEvery + Wide::first());
        offset[i] = int((line.offset - origin) / kChunk), h[i] = line.h, w[i] = line.w;
      }
    }

    // The chunks that begin at `from` in the block's first line, moved by (at_h, at_w)
    template <bool past_l1 = true>
    __device__ __forceinline__ void copy(T* tile, const T* from, int at_h, int at_w, int bounds_h, int bounds_w) const {
      T* to = tile + at(Wide::first(), Wide::column());
#pragma unroll
      for (int i = 0; i < Wide::kCount; i++) {
        const bool inside = unsigned(h[i] + at_h) < unsigned(bounds_h) && unsigned(w[i] + at_w) < unsigned(bounds_w);
        async_copy<kChunkBytes, past_l1>(to + i * Wide::kEvery * kPitch, from + (long long)offset[i] * kChunk,
                                         inside ? kChunkBytes : 0);
      }
    }
  };

  // The same of a filter, whose lines lie `pitch` elements apart; `there`: so many of the thread's are.
  static __device__ __forceinline__ void copy_filters(T* tile, const T* from, int pitch, int there) {
    T* to = tile + at(Wide::first(), Wide::column());
#pragma unroll
    for (int i = 0; i < Wide::kCount; i++)
      async_copy<kChunkBytes>(to + i * Wide::kEvery * kPitch, from + (long long)pitch * (i * Wide::kEvery),
                              i < there ? kChunkBytes : 0);
  }

  // Where this lane finds its part of what load_four loads of line 0 and step 0, in bytes
  template <bool kLinesFirst> static __device__ __forceinline__ int lane_at(int line0) {
    const int lane = int(threadIdx.x) % 32;
    if constexpr (kLinesInner && sizeof(T) == 4) return at(lane % 4, line0 + lane / 4) * int(sizeof(T));
    const int line = kLinesFirst ? lane / 8 % 2 : lane / 16, step = kLinesFirst ? lane / 16 : lane / 8 % 2;
    if constexpr (kLinesInner) return at(step * kChunk + lane % 8, line0 + line * 8) * int(sizeof(T));
    else return at(line0 + line * 8 + lane % 8, step * kChunk) * int(sizeof(T));
  }

  // Four 8 x 8 (of tf32: 8 x 4) parts of the tile for an mma's registers, two along lines and two along steps: those
  // along lines first if kLinesFirst. line: from the warp's first, a multiple of 16; k: which instruction's steps.
  template <bool kLinesFirst>
  static __device__ __forceinline__ void load_four(uint32_t (&r)[4], const T* tile, int lane, int line, int k) {
    const char* from = reinterpret_cast<const char*>(tile);
    if constexpr (kLinesInner) {
      from += lane + (k * 2 * kChunk * kPitch + line) * int(sizeof(T));
      if constexpr (sizeof(T) == 2) {
        ldmatrix_x4_trans(r, from);
      } else {  // ldmatrix transposes 16-bit elements alone
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const int lines = kLinesFirst ? i % 2 : i / 2, steps = kLinesFirst ? i / 2 : i % 2;
          r[i] = *reinterpret_cast<const uint32_t*>(from + (steps * kChunk * kPitch + lines * 8) * int(sizeof(T)));
        }
      }
    } else {  // the exchange is an XOR, and so is a step of two chunks
      ldmatrix_x4(r, from + (lane ^ k * 2 * kChunkBytes) + line * kPitch * int(sizeof(T)));
    }
  }
};

// Where a thread is along the steps of an image, which are taps with `depth` channels each.
struct TapWalk {
  int depth, across;  // taps in a row of the filter
  int delta_h, delta_w;  // of the image's coordinates
  long long a_tap, a_row;  // from a tap's end to the next one's begin in A, and what a row's end adds to it
  int b_tap, b_row;
};
template <class T> struct TapPosition {
  const T *a, *b;
  int channel, left, column, h, w;  // left: taps, this one too

  __device__ __forceinline__ void advance(int steps, int depth, const TapWalk& walk) {
    channel += steps, a += steps, b += steps;
#pragma unroll 1
    while (channel >= depth) {
      channel -= depth, left--, a += walk.a_tap, b += walk.b_tap, w += walk.delta_w;
      if (++column == walk.across) column = w = 0, a += walk.a_row, b += walk.b_row, h += walk.delta_h;
    }
  }
};

// ---- what becomes of the sums ----

// Where the elements of a tile's rows and columns lie in the output, in shared memory; -1: nowhere.
template <class Tile> struct Lines {
  long long row[Tile::M], column[Tile::N];
  alignas(16) float bias[Tile::N];
};

// Element (m, n), product by product in float32: where 3xtf32 meets an infinity, or a number that rounds to one, its
// second half is NaN.
template <class Part> __device__ float one_by_one(const Part& part, long long m, long long n, int K) {
  Position row, column, a, b;
  long long at;
  part.row(m, row, at), part.column(n, column, at);
  float sum = 0;
#pragma unroll 1
  for (int step = 0; step < part.tiles(K) * K; step++) {
    part.step(step / K, step % K, K, a, b);
    if (unsigned(row.h + a.h) < unsigned(part.a_h) && unsigned(row.w + a.w) < unsigned(part.a_w) &&
        unsigned(column.h + b.h) < unsigned(part.b_h) && unsigned(column.w + b.w) < unsigned(part.b_w))
      sum = fmaf(float(part.a_base[row.offset + a.offset]), float(part.b_base[column.offset + b.offset]), sum);
  }
  return sum;
}

// Where the sums lie in shared memory: [M][N], fours of columns exchanged so that neither a warp's fragments, nor fours
// side by side, nor 8 rows of 4 columns have bank conflicts. Two rows of 16 are 32 banks.
template <class Tile> __device__ __forceinline__ int sum_at(int row, int column) {
  static_assert(Tile::N == 16 || Tile::N % 32 == 0);
  const int eights = Tile::N == 16 ? row / 2 % 2 : row % 4;
  return row * Tile::N + (column ^ (eights * 8 + row / 4 % 2 * 4));
}
// Where (row + 8 i, column + 8 j) lies, from where (row, column) does, a warp's first column or one of the next seven. A
// step of eights within 32 is an XOR, as the exchange is: an address for many stores.
template <class Tile> __device__ __forceinline__ int sum_after(int at, int i, int j) {
  return (at ^ j % 4 * 8) + j / 4 * 32 + i * 8 * Tile::N;
}

// Sums that are not finite, as store_sums finds them, are made once more. In a loop of its own: where each sum is stored,
// nvcc made thirty copies of what makes one.
template <class Tile, class Part>
__device__ __forceinline__ void make_exact(const Part& part, float* sums, long long m0, long long n0) {
#pragma unroll 1
  for (int first = 4 * int(threadIdx.x); first < Tile::M * Tile::N; first += 4 * Tile::threads) {
    const float4 four = load4(sums + first);
    if ((four.x - four.x) + (four.y - four.y) + (four.z - four.z) + (four.w - four.w) == 0.0f) continue;
#pragma unroll 1
    for (int i = first; i < first + 4; i++) {
      const int row = i / Tile::N,
                column = sum_at<Tile>(row, i % Tile::N) - row * Tile::N;  // an XOR is its own inverse
      if (sums[i] - sums[i] != 0.0f) sums[i] = one_by_one(part, m0 + row, n0 + column, Tile::K);
    }
  }
}

// Loops are counted, and load what they store before they look whether it is there: else nvcc makes remainders of them,
// longer than the main loop, and loads wait for the stores before them.
template <class Tile, class Part>
__device__ __forceinline__ void store_sums(const Part& part, const Lines<Tile>& lines, const float* sums) {
  const int thread = int(threadIdx.x);
  if (part.fours) {
    constexpr int kAcross = Tile::N / 4, kMost = Tile::threads / kAcross, kAtOnce = 2;
    // 48 fours of 192 columns are no power of two
    constexpr int kTall = Tile::M % kMost == 0 ? kMost : int(std::bit_floor(unsigned(kMost))), kCount = Tile::M / kTall;
    static_assert(Tile::M % kTall == 0 && kCount % kAtOnce == 0);
    const int n = thread % kAcross * 4, first = thread / kAcross;
    const long long column = lines.column[n];
    if (first >= kTall || column < 0) return;
    const float4 bias = load4(lines.bias + n);
#pragma unroll 1
    for (int i = 0; i < kCount; i += kAtOnce) {
      long long row[kAtOnce];
      Vector<float, 4> sum[kAtOnce];
#pragma unroll
      for (int j = 0; j < kAtOnce; j++) {
        const int m = first + (i + j) * kTall;
        const float4 four = load4(sums + sum_at<Tile>(m, n));
        row[j] = lines.row[m], sum[j] = {{four.x + bias.x, four.y + bias.y, four.z + bias.z, four.w + bias.w}};
      }
#pragma unroll
      for (int j = 0; j < kAtOnce; j++)
        if (row[j] >= 0) part.store_together(row[j] + column, sum[j]);
    }
    return;
  }
  // a warp stores so many rows at once, a thread so many of those
  const auto in_rows = [&](auto tall, auto together) {
    constexpr int kEach = decltype(together)::value, kTall = decltype(tall)::value / kEach, kWide = 32 / kTall;
    constexpr int kWarps = Tile::threads / 32, kAcross = std::gcd(Tile::N / kWide, kWarps);  // and down, what is left
    constexpr int kRows = kWarps / kAcross * kTall * kEach, kCount = Tile::M / kRows, kAtOnce = kCount < 2 ? kCount : 2;
    static_assert(Tile::M % kRows == 0 && kCount % kAtOnce == 0);
    const int warp = thread / 32, lane = thread % 32;
    // Eight threads whose rows begin a multiple of eight apart would find them in the same banks: they take theirs in
    // different orders.
    const int order = kEach > 1 ? thread / (8 / kEach) % kEach : 0;
    const int first = (warp / kAcross * kTall + lane % kTall) * kEach;
#pragma unroll 1
    for (int n = warp % kAcross * kWide + lane / kTall; n < Tile::N; n += kAcross * kWide) {
      const long long column = lines.column[n];
      const float bias = lines.bias[n];
#pragma unroll 1
      for (int i = 0; i < kCount; i += kAtOnce) {
        long long row[kAtOnce];
        Vector<float, kEach> sum[kAtOnce];
#pragma unroll
        for (int j = 0; j < kAtOnce; j++) {
          const int m = first + (i + j) * kRows;
          row[j] = lines.row[m];
#pragma unroll
          for (int e = 0; e < kEach; e++) sum[j].at[e] = sums[sum_at<Tile>(m + (e ^ order), n)] + bias;
        }
#pragma unroll
        for (int j = 0; j < kAtOnce; j++) {
#pragma unroll
          for (int bit = 1; bit < kEach; bit *= 2)
#pragma unroll
            for (int e = 0; e < kEach; e++)
              if (!(e & bit) && (order & bit)) {
                const float other = sum[j].at[e];
                sum[j].at[e] = sum[j].at[e + bit], sum[j].at[e + bit] = other;
              }
          if (row[j] >= 0 && column >= 0) part.store_together(row[j] + column, sum[j]);
        }
      }
    }
  };
  using std::integral_constant;
  constexpr int kRowsOfFew = Tile::N < 32 ? 32 / Tile::N : 1;
  if (!part.rows_inner) in_rows(integral_constant<int, kRowsOfFew>{}, integral_constant<int, 1>{});
  else if (part.rows_together == 4) in_rows(integral_constant<int, 32>{}, integral_constant<int, 4>{});
  else if (part.rows_together == 2) in_rows(integral_constant<int, 16>{}, integral_constant<int, 2>{});
  else in_rows(integral_constant<int, 8>{}, integral_constant<int, 1>{});
}

// ---- the main loop ----

// Makes the block's tile whose first row is m0 and first column n0. `part` is what the Map gives this block to do.
template <class Tile, class Products, class Part>
__device__ __forceinline__ void multiply_tile(const Part& part, long long m0, long long n0) {
  using T = typename Products::Element;
  using TileOfA = OperandTile<T, Tile::M, Part::kLinesInner, Tile::threads>;
  using TileOfB = OperandTile<T, Tile::N, Part::kLinesInner && Part::kBAsA, Tile::threads>;
  constexpr int kM = Tile::warp_m / 16, kN = Tile::warp_n / 8, K = Tile::K;
  static_assert(K == TileOfA::kSteps);
  DYNAMIC_SHARED(T, tiles);  // [stages][A, B], and in the end [M][N] sums
  // Images and filters are walked along, tap by tap, where chunks are of one tap: images of 16 bits always are
  // (conv2d_tensor_core_plan.h). The positions of all other steps are in tables, of two tiles.
  constexpr bool kImageWalks = !Part::kBAsA && !Part::kLinesInner, kAlwaysWide = sizeof(T) == 2;
  constexpr bool kTables = !(kImageWalks && kAlwaysWide);
  const bool a_wide = kAlwaysWide || part.a_wide, b_wide = kAlwaysWide || part.b_wide;
  const bool a_walks = kImageWalks && a_wide, b_walks = !Part::kBAsA && b_wide;
  // Of lines, the walks know what they need before the main loop's first barrier: their positions lie where the first
  // tiles will.
  struct Positions {
    Position a[Tile::M], b[Tile::N];
  };
  using Kept = std::conditional_t<kTables, Positions, int>;
  SHARED(Lines<Tile>, lines, [1]);
  SHARED(Kept, kept, [1]);
  Positions& positions = *reinterpret_cast<Positions*>(kTables ? static_cast<void*>(kept) : static_cast<void*>(tiles));
  SHARED(Position, steps_a, [2][kTables ? K : 1]);
  SHARED(Position, steps_b, [2][kTables ? K : 1]);
  const int thread = int(threadIdx.x);

  // A thread has one or two rows and columns: copies of what places them, with its divisions, gain nothing.
#pragma unroll 1
  for (int i = thread; i < Tile::M; i += Tile::threads) {
    Position a;
    part.row(m0 + i, a, lines[0].row[i]);
    write(&positions.a[TileOfA::line_at(i)], a);
  }
#pragma unroll 1
  for (int i = thread; i < Tile::N; i += Tile::threads) {
    Position b;
    part.column(n0 + i, b, lines[0].column[i]);
    write(&positions.b[TileOfB::line_at(i)], b);
    lines[0].bias[i] = n0 + i < part.columns ? part.bias_of(n0 + i) : 0.0f;
  }
  const int count = part.tiles(K);

  const auto table_steps = [&](int tile) {
    if constexpr (kTables) {
      if (thread >= K || (a_walks && b_walks)) return;
      Position a, b;
      part.step(tile, thread, K, a, b);
      write(&steps_a[tile & 1][TileOfA::step_at(thread)], a), write(&steps_b[tile & 1][TileOfB::step_at(thread)], b);
    }
  };
  table_steps(0);
  __syncthreads();  // the lines' positions are there

  const auto image = [&] {
    if constexpr (kImageWalks) return typename TileOfA::ImageLines(positions.a);
    else return 0;
  }();
  [[maybe_unused]] TapPosition<T> at;
  [[maybe_unused]] int depth = 0, pitch = 0, filters = 0;
  [[maybe_unused]] typename TileOfA::Column column_a{};
  [[maybe_unused]] typename TileOfB::Column column_b{};
  const int a_h = part.a_h, a_w = part.a_w, b_h = part.b_h, b_w = part.b_w;
  if constexpr (!Part::kBAsA) {
    using Wide = typename TileOfB::Wide;
    at = part.first_tap, depth = part.walk.depth, pitch = part.filter_pitch;
    at.a += positions.a[0].offset, at.b += (n0 + Wide::first()) * pitch;
    at.advance(Wide::column(), depth, part.walk);
    filters = int(min((part.columns - n0 - Wide::first() + Wide::kEvery - 1) / Wide::kEvery, (long long)Tile::N));
  }
  if (TileOfA::kLinesInner) column_a = TileOfA::column_of(part.a_base, positions.a, nullptr, a_wide);
  if (TileOfB::kLinesInner) column_b = TileOfB::column_of(part.b_base, positions.b, nullptr, b_wide);
  const auto copy = [&](T* a_tile, T* b_tile, int tile) {
    if constexpr (kImageWalks)
      if (a_walks) image.template copy<Tile::past_l1>(a_tile, at.a, at.left > 0 ? at.h : kFarOutside, at.w, a_h, a_w);
    if constexpr (!Part::kBAsA)
      if (b_walks) TileOfB::copy_filters(b_tile, at.b, pitch, at.left > 0 ? filters : 0);
    if constexpr (kTables) {
      const Position *a = steps_a[tile & 1], *b = steps_b[tile & 1];
      if (!a_walks) {
        if (!TileOfA::kLinesInner) column_a = TileOfA::column_of(part.a_base, nullptr, a, a_wide);
        TileOfA::template copy<Part::kBAsA>(a_tile, column_a, positions.a, a, a_h, a_w, a_wide);
      }
      if (!b_walks) {
        if (!TileOfB::kLinesInner) column_b = TileOfB::column_of(part.b_base, nullptr, b, b_wide);
        TileOfB::template copy<!Part::kBAsA>(b_tile, column_b, positions.b, b, b_h, b_w, b_wide);
      }
    }
    if constexpr (!Part::kBAsA) at.advance(K, depth, part.walk);
  };

  float sums[kM][kN][4], products[kM][kN][4], line_sum = 0, line_lost = 0;
#pragma unroll
  for (int i = 0; i < kM; i++)
#pragma unroll
    for (int j = 0; j < kN; j++)
#pragma unroll
      for (int e = 0; e < 4; e++) sums[i][j][e] = products[i][j][e] = 0;

  const bool sums_lines = Part::kLineSums && part.wants_line_sums && n0 == 0 && thread < Tile::M;
  const int lane_a = TileOfA::template lane_at<true>(Tile::warp_row());
  const int lane_b = TileOfB::template lane_at<false>(Tile::warp_column());
  constexpr int kElements = TileOfA::kElements + TileOfB::kElements, kEnd = Tile::stages * kElements;
  int full = 0, free = 0;  // where the stage is that is multiplied, and the one that is copied to
  for (int tile = 1 - Tile::stages; tile < count; tile++) {  // before 0 it only starts copies
    async_wait<Tile::stages - 2>();
    __syncthreads();  // this tile is there; nobody reads the one before it, nor its steps
    const int next = tile + Tile::stages - 1;
    if (next < count) copy(tiles + free, tiles + free + TileOfA::kElements, next);
    async_commit();
    table_steps(next + 1);
    free = free + kElements == kEnd ? 0 : free + kElements;
    if (tile < 0) continue;

    const T* a_tile = tiles + full;
    const T* b_tile = a_tile + TileOfA::kElements;
    full = full + kElements == kEnd ? 0 : full + kElements;
#pragma unroll
    for (int k = 0; k < kInstructions; k++) {
      typename Products::template Fragment<4> a[kM];
      typename Products::template Fragment<2> b[kN];
#pragma unroll
      for (int i = 0; i < kM; i++) {
        uint32_t raw[4];
        TileOfA::template load_four<true>(raw, a_tile, lane_a, i * 16, k);
        a[i] = Products::fragment(raw, false);
      }
#pragma unroll
      for (int j = 0; j < kN; j += 2) {
        uint32_t raw[4];
        TileOfB::template load_four<false>(raw, b_tile, lane_b, j * 8, k);
        const uint32_t first[2] = {raw[0], raw[1]}, second[2] = {raw[2], raw[3]};
        b[j] = Products::fragment(first, !Part::kBAsA);
        b[j + 1] = Products::fragment(second, !Part::kBAsA);
      }
#pragma unroll
      for (int i = 0; i < kM; i++)
#pragma unroll
        for (int j = 0; j < kN; j++) {
          if constexpr (Products::kPromotes) Products::add(products[i][j], a[i], b[j]);
          else Products::add(sums[i][j], a[i], b[j]);
        }
    }
    if constexpr (Products::kPromotes) {
#pragma unroll
      for (int i = 0; i < kM; i++)
#pragma unroll
        for (int j = 0; j < kN; j++)
#pragma unroll
          for (int e = 0; e < 4; e++) sums[i][j][e] += products[i][j][e], products[i][j][e] = 0;
    }
    if constexpr (Part::kLineSums)
      if (sums_lines) {
        float of_tile = 0;
#pragma unroll 8
        for (int k = 0; k < K; k++)  // rows side by side, or steps so that 32 rows are in 32 banks
          of_tile +=
              float(a_tile[Part::kLinesInner ? TileOfA::at(k, thread) : TileOfA::at(thread, k ^ (thread / 8 % 4))]);
        const float before = line_sum, more = of_tile - line_lost;  // Kahan: a slice has thousands of tiles
        line_sum = before + more, line_lost = (line_sum - before) - more;
      }
  }
  if constexpr (Part::kLineSums)
    if (sums_lines && lines[0].row[thread] >= 0) part.store_line_sum(m0 + thread, line_sum);

  __syncthreads();  // nobody reads the tiles
  float* all = reinterpret_cast<float*>(tiles);
  const int mine = sum_at<Tile>(Tile::warp_row() + thread % 32 / 4, Tile::warp_column() + thread % 4 * 2);
#pragma unroll
  for (int i = 0; i < kM; i++)
#pragma unroll
    for (int j = 0; j < kN; j++)
#pragma unroll
      for (int half = 0; half < 2; half++)
        store_shared(all + sum_after<Tile>(mine, 2 * i + half, j),
                     Vector<float, 2>{{sums[i][j][2 * half], sums[i][j][2 * half + 1]}});
  __syncthreads();
  if constexpr (Products::kPromotes) {
    make_exact<Tile>(part, all, m0, n0);
    __syncthreads();
  }
  store_sums<Tile>(part, lines[0], all);
}

// grid (ceil(rows / M), ceil(columns / N), parts)
template <class Products, class Tile, class Map>
__global__ void __launch_bounds__(Tile::threads, Tile::blocks) tensor_core_kernel(const __grid_constant__ Map map) {
  SHARED(typename Map::Part, part, [1]);  // in shared memory, because the loop needs the registers
  map.make_part(int(blockIdx.z), part[0]);
  __syncthreads();
  const long long m0 = (long long)blockIdx.x * Tile::M, n0 = (long long)blockIdx.y * Tile::N;
  if (m0 >= part[0].rows) return;  // parts may differ in rows
  multiply_tile<Tile, Products>(part[0], m0, n0);
}

}  // namespace convlab
