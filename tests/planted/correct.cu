// Kernels without a bug: the simulator runs them and has nothing to say.
#include "dtype.h"
#include "planted.h"

namespace planted {
namespace {

__global__ void tile_kernel(const float* in, float* out) {
  SHARED(float, tile, [64]);
  const int t = threadIdx.x;
  float sum = 0;
  for (int k = 0; k < 3; k++) {
    tile[t] = in[64 * k + t];
    __syncthreads();
    sum += tile[(t + 37) % 64];
    __syncthreads();
  }
  out[t] = sum;
}
PLANTED(tile, RIGHT { return in[(i + 37) % 64] + in[64 + (i + 37) % 64] + in[128 + (i + 37) % 64]; });

__global__ void exchange_in_a_warp_kernel(const float* in, float* out) {
  SHARED(float, a, [64]);
  const int t = threadIdx.x;
  a[t] = in[t];
  __syncwarp();
  out[t] = a[t ^ 1];
}
PLANTED(exchange_in_a_warp, RIGHT { return in[i ^ 1]; });

__global__ void shuffles_kernel(const float* in, float* out) {
  const int t = threadIdx.x;
  const float v = in[t];
  const float first = __shfl_sync(0xffffffffu, v, 0), up = __shfl_up_sync(0xffffffffu, v, 1), down = __shfl_down_sync(0xffffffffu, v, 1, 8);
  const unsigned odd = __ballot_sync(0xffffffffu, t % 2);
  out[t] = odd == 0xaaaaaaaau && __any_sync(0xffffffffu, t == 40 || t == 3) && !__all_sync(0xffffffffu, t < 1) ? first + 2 * up + 4 * down : 0.0f;
}
PLANTED(shuffles, RIGHT { return in[i / 32 * 32] + 2 * in[i % 32 ? i - 1 : i] + 4 * in[i % 8 == 7 ? i : i + 1]; });

// a sum over three blocks: in warps by shuffles, in blocks through shared memory, over blocks by atomics
__global__ void sum_kernel(const float* in, float* total, int n) {
  SHARED(float, parts, [2]);
  float sum = 0;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) sum += in[i];
  for (int offset = 16; offset; offset /= 2) sum += __shfl_down_sync(0xffffffffu, sum, offset);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) atomicAdd(total, parts[0] + parts[1]);
}

__global__ void zero_kernel(float* out) { out[threadIdx.x] = 0; }

void sum_over_blocks(const float* in, float* out) {
  launch(zero_kernel, dim3(1), dim3(64), 0, nullptr, out);
  launch(sum_kernel, dim3(3), dim3(64), 0, nullptr, in, out, kElements);
}
PLANTED_LAUNCH(sum_over_blocks, sum_over_blocks(in, out), RIGHT {
  double sum = 0;
  for (int k = 0; k < kElements && i == 0; k++) sum += in[k];
  return float(sum);
});

__constant__ float taps[64];

__global__ void constant_kernel(const float* in, float* out) { out[threadIdx.x] = taps[threadIdx.x] * in[threadIdx.x]; }

void constant(const float* in, float* out) {
  float host[64];
  for (int i = 0; i < 64; i++) host[i] = float(i);
  COPY_TO_SYMBOL(taps, host, sizeof host, nullptr);
  launch(constant_kernel, dim3(1), dim3(64), 0, nullptr, in, out);
}
PLANTED_LAUNCH(constant_memory, constant(in, out), RIGHT { return float(i) * in[i]; });

__global__ void dynamic_memory_kernel(const float* in, float* out) {
  DYNAMIC_SHARED(float, tile);
  tile[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = tile[63 - threadIdx.x];
}
PLANTED_LAUNCH(dynamic_memory, launch(dynamic_memory_kernel, dim3(1), dim3(64), 256, nullptr, in, out), RIGHT { return in[63 - i]; });

// two views of the dynamic memory: 64 floats, then 64 halves
__global__ void two_views_kernel(const float* in, float* out) {
  DYNAMIC_SHARED(float, floats);
  DYNAMIC_SHARED(convlab::float16, all);
  convlab::float16* halves = all + 128;
  floats[threadIdx.x] = in[threadIdx.x];
  halves[threadIdx.x] = convlab::float16(float(threadIdx.x));
  __syncthreads();
  out[threadIdx.x] = floats[63 - threadIdx.x] + float(halves[threadIdx.x ^ 1]);
}
PLANTED_LAUNCH(two_views, launch(two_views_kernel, dim3(1), dim3(64), 384, nullptr, in, out), RIGHT { return in[63 - i] + float(i ^ 1); });

// bytes: neighbours are different memory
__global__ void bytes_kernel(const float* in, float* out) {
  SHARED(unsigned char, rank, [64]);
  rank[threadIdx.x] = (unsigned char)(63 - threadIdx.x);
  __syncthreads();
  out[threadIdx.x] = in[rank[threadIdx.x]];
}
PLANTED(bytes, RIGHT { return in[63 - i]; });

// D [16][8] = A [16][16] B [16][8] in bfloat16 by the first warp: A[i][k] = in[16 i + k], B[k][j] = in[8 k + j]
__global__ void tensor_core_kernel(const float* in, float* out) {
  SHARED(uint16_t, a, [16][24]);
  SHARED(uint16_t, b, [16][24]);
  const int lane = threadIdx.x;
  if (lane >= 32) return;
  for (int i = lane; i < 256; i += 32) a[i / 16][i % 16] = uint16_t(convlab::pack_bf16(in[i], 0));
  for (int i = lane; i < 256; i += 32) b[i / 16][i % 16] = i % 16 < 8 ? uint16_t(convlab::pack_bf16(in[i / 16 * 8 + i % 16], 0)) : uint16_t(0);
  __syncwarp();
  uint32_t fa[4], fb[4];
  convlab::ldmatrix_x4(fa, &a[lane % 16][8 * (lane / 16)]);
  convlab::ldmatrix_x4_trans(fb, &b[lane % 16][8 * (lane / 16)]);
  const uint32_t left_columns[2] = {fb[0], fb[1]};
  float d[4] = {};
  convlab::mma_m16n8k16_bf16(d, fa, left_columns, d);
  const int g = lane / 4, t = lane % 4;
  for (int i = 0; i < 4; i++) {
    const int row = g + 8 * (i / 2), column = 2 * t + i % 2;
    if (row < 8) out[8 * row + column] = d[i];
  }
}
float bfloat16_of(float f) { return float(convlab::bfloat16(f)); }
PLANTED(tensor_core, RIGHT {
  float sum = 0;
  for (int k = 0; k < 16; k++) sum += bfloat16_of(in[16 * (i / 8) + k]) * bfloat16_of(in[8 * k + i % 8]);
  return sum;
});

__global__ void tf32_kernel(const float* in, float* out) {  // D [16][8] = A [16][8] B [8][8], A[i][k] = in[8 i + k], B[k][j] = in[8 k + j]
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const uint32_t a[4] = {convlab::to_tf32(in[8 * g + t]), convlab::to_tf32(in[8 * (g + 8) + t]), convlab::to_tf32(in[8 * g + t + 4]),
                         convlab::to_tf32(in[8 * (g + 8) + t + 4])};
  const uint32_t b[2] = {convlab::to_tf32(in[8 * t + g]), convlab::to_tf32(in[8 * (t + 4) + g])};
  float d[4] = {};
  convlab::mma_m16n8k8_tf32(d, a, b, d);
  if (threadIdx.x < 32)
    for (int i = 0; i < 2; i++) out[8 * g + 2 * t + i] = d[i];
}
PLANTED(tf32, RIGHT {
  const auto round = [](float f) { return convlab::float_of(convlab::to_tf32(f)); };
  float sum = 0;
  for (int k = 0; k < 8; k++) sum += round(in[8 * (i / 8) + k]) * round(in[8 * k + i % 8]);
  return sum;
});

// Lanes that have returned are waited for by nobody, whatever the mask says. What comes from them is not used, unless
// they wrote it to memory before a __syncwarp that they took part in.
__global__ void early_return_kernel(const float* in, float* out) {
  SHARED(float, a, [64]);
  const int t = threadIdx.x, lane = t % 32;
  a[t] = in[t];
  __syncwarp();
  out[t] = 0;
  if (lane >= 20) return;
  float next = __shfl_down_sync(0xffffffffu, in[t], 1);
  if (lane == 19) next = 1;
  const bool all_here = __ballot_sync(0xffffffffu, 1) == 0xfffffu && __all_sync(0xffffffffu, 1);
  a[t] = next;
  __syncwarp();
  out[t] = a[lane ? t - 1 : t] + a[t - lane + 31] + (all_here ? 0 : 9);
}
PLANTED(early_return, RIGHT {
  const int lane = i % 32, before = lane ? i - 1 : i;
  return lane >= 20 ? 0 : (before % 32 == 19 ? 1 : in[before + 1]) + in[i - lane + 31];
});

__global__ void async_copies_kernel(const float* in, float* out) {
  SHARED(float, a, [2][64]);
  const int t = threadIdx.x;
  convlab::async_copy<4>(&a[0][t], &in[t]);
  convlab::async_commit();
  convlab::async_copy<4>(&a[1][t], &in[64 + t], t % 2 ? 4 : 0);  // even ones are filled with zero
  convlab::async_commit();
  convlab::async_wait<1>();
  __syncthreads();
  float sum = a[0][63 - t];
  convlab::async_wait<0>();
  __syncthreads();
  out[t] = sum + a[1][63 - t];
}
PLANTED(async_copies, RIGHT { return in[63 - i] + ((63 - i) % 2 ? in[64 + 63 - i] : 0); });

__global__ void vectors_kernel(const float* in, float* out) {
  const int t = threadIdx.x;
  if (t < 16) convlab::store4(&out[4 * t], convlab::load4(&in[4 * (15 - t)]));
}
PLANTED(vectors, RIGHT { return in[4 * (15 - i / 4) + i % 4]; });

// A warpgroup's product of matrices whose rows, and whose columns, lie side by side: 64 of them after each other, and the
// second 64 columns at a distance of their own
constexpr int kColumnBytes = 3 * 1024;
constexpr int row_element(int row, int step) { return (row * 3 + step * 5) % 7 - 3; }
constexpr int column_element(int column, int step) { return (column * 2 + step * 3) % 11 - 5; }
constexpr int column_for(int row) { return row * 37 % 128; }

__global__ void products_of_lines_kernel(const float*, float* out) {
  DYNAMIC_SHARED(convlab::bfloat16, memory);
  char* const a = reinterpret_cast<char*>(convlab::on_swizzle_boundary(memory));
  char* const b = a + 2 * 1024;
  const auto put = [](char* tile, int line, int step, int value) {  // step by step, of 64 lines
    const int at = step / 8 * 1024 + step % 8 * 128 + (line / 8 ^ step % 8) * 16 + line % 8 * 2;
    *reinterpret_cast<convlab::bfloat16*>(tile + at) = convlab::bfloat16(float(value));
  };
  for (int i = threadIdx.x; i < 64 * 16; i += 128) {
    const int line = i % 64, step = i / 64;
    put(a, line, step, row_element(line, step)), put(b, line, step, column_element(line, step));
    put(b + kColumnBytes, line, step, column_element(64 + line, step));
  }
  convlab::warpgroup_sees_writes();
  __syncthreads();
  float sums[64] = {};
  convlab::warpgroup_begin();
  convlab::wgmma_lines<convlab::bfloat16>(sums, convlab::shared_lines(a, 1024), convlab::shared_lines(b, kColumnBytes));
  convlab::warpgroup_commit();
  convlab::warpgroup_wait_for(sums);
  const int thread = threadIdx.x, g = thread % 32 / 4, t = thread % 4;
  for (int i = 0; i < 64; i++) {
    const int row = thread / 32 * 16 + g + i / 2 % 2 * 8, column = i / 4 * 8 + 2 * t + i % 2;
    if (column == column_for(row)) out[row] = sums[i];
  }
}
PLANTED_LAUNCH(products_of_lines,
               launch(products_of_lines_kernel, dim3(1), dim3(128), 2 * 1024 + 2 * kColumnBytes + 1024, nullptr, in, out),
               [](const float*, int i) -> float {
                 int sum = 0;
                 for (int step = 0; step < 16; step++) sum += row_element(i, step) * column_element(column_for(i), step);
                 return float(sum);
               });

}  // namespace
}  // namespace planted
