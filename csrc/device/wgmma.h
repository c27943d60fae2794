// Matrix products of a warpgroup, four warps side by side (wgmma, sm_90a). Operands come from shared memory, the first also
// from registers, and the products happen by themselves, beside what the threads do next.
//
//   shared_matrix(tile)              a matrix in shared memory whose rows are 128 bytes of steps, their 16-byte chunks
//                                    exchanged by an XOR with the row's number; tile: a multiple of 1024 bytes
//   on_swizzle_boundary(p)           the first such multiple in the shared memory at p
//   at_step(matrix, bytes)           the same from so many bytes of each row on, a multiple of 32 below 128
//   at_row(matrix, row)              the same from a row on, a multiple of 8
//   shared_lines(tile, bytes)        a matrix of 16-bit elements whose rows (b: columns) lie side by side: 64 of them in the
//                                    128 bytes of a step, chunks exchanged by an XOR with the step's number; `bytes` from 64
//                                    rows to the next, a multiple of 1024
//   at_step_of_lines(matrix, step)   the same from a step on, a multiple of 8
//   warpgroup_begin();               before the first product: sums are in their registers
//   wgmma<E>(sums, a, b);            sums [64][N] += a [64][32 bytes] b [N][32 bytes]^T, with N = 2 x the array's length
//   wgmma<E>(sums, registers, b);    the same of a in registers: a lane's are laid out as those of an mma (mma.h), whose 16
//                                    rows begin at 16 w. Until the products are made they keep their values
//   wgmma<E, false>(sums, a, b);     sums [64][N] = ...: whatever was in them
//   wgmma_lines<E>(sums, a, b);      the same of matrices whose rows lie side by side, a [16 steps][64]^T b [16 steps][N]
//   warpgroup_commit();              closes a group of products
//   warpgroup_wait<1>();             until at most one group is pending: only then may its tiles be written again
//   warpgroup_wait_for(sums);        until none is: only then may sums be read
//   warpgroup_wait_for<1>(sums);     until at most one is, which is not of these sums
//   warpgroup_sees_writes();         by every thread that wrote a tile, before the barrier behind which it is multiplied
//
// E: float16 and bfloat16, whose instruction takes 16 steps, or float, 8 steps, of which it ignores the low 13 bits (TF32,
// truncated). Lane 4 g + t of warp w holds row 16 w + g + 8 h, column 8 j + 2 t + i of the sums in sums[4 j + 2 h + i].
#pragma once
#include <cstdint>

#include "device/device.h"
#include "dtype.h"

namespace convlab {

constexpr int kWarpgroupThreads = 128;  // threads
constexpr int kWarpgroupRows = 64;  // of a, whatever N is
constexpr int kSwizzleBytes = 1024;  // after which the exchange of chunks repeats: 8 rows

// As the PTX ISA has it ("matrix descriptor"), all in units of 16 bytes: bits 0 to 13 where the matrix begins; 16 to 29
// from 64 rows to the next 64, where those lie side by side, else not used, and 1; 32 to 45 from 8 rows to the next 8, or
// 8 steps where rows lie side by side; 49 to 51 zero, because the exchange begins with the matrix; 62 and 63 which exchange,
// 1 for that of 128 bytes.
using MatrixDescriptor = uint64_t;

constexpr __device__ MatrixDescriptor matrix_descriptor(uint32_t address, uint32_t leading = 16) {
  return MatrixDescriptor{1} << 62 | MatrixDescriptor{kSwizzleBytes / 16} << 32 | MatrixDescriptor{leading / 16} << 16 |
         (address & 0x3ffff) / 16;
}
constexpr __device__ MatrixDescriptor at_step(MatrixDescriptor matrix, int bytes) { return matrix + bytes / 16; }
constexpr __device__ MatrixDescriptor at_row(MatrixDescriptor matrix, int row) {
  return matrix + row / 8 * (kSwizzleBytes / 16);
}
constexpr __device__ MatrixDescriptor at_step_of_lines(MatrixDescriptor matrix, int step) {
  return matrix + step / 8 * (kSwizzleBytes / 16);
}

}  // namespace convlab

#if defined(__CUDACC__)
#include "device/wgmma_instructions.h"
#else
#include "simulator/warpgroup_mma.h"
#endif

namespace convlab {

__device__ __forceinline__ MatrixDescriptor shared_matrix(const void* tile) {
  return matrix_descriptor(shared_address(tile));
}

__device__ __forceinline__ MatrixDescriptor shared_lines(const void* tile, uint32_t bytes) {
  return matrix_descriptor(shared_address(tile), bytes);
}

template <class T> __device__ __forceinline__ T* on_swizzle_boundary(T* p) {
  return reinterpret_cast<T*>(reinterpret_cast<char*>(p) + (-shared_address(p) & (kSwizzleBytes - 1)));
}

}  // namespace convlab
