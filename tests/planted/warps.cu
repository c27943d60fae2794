#include "planted.h"

namespace planted {
namespace {

__global__ void half_a_warp_kernel(const float* in, float* out) {
  float v = in[threadIdx.x];
  if (threadIdx.x % 32 < 16) v = __shfl_xor_sync(0xffffffffu, v, 1);  // both: deadlock
  __syncthreads();  // so the others do not return, which would be as good as taking part
  out[threadIdx.x] = v;
}
PLANTED(half_a_warp, nullptr);

// __syncwarp orders the memory of those who take part.
__global__ void written_before_a_return_kernel(const float* in, float* out) {
  SHARED(float, a, [64]);
  const int t = threadIdx.x;
  a[t] = in[t];
  if (t % 32 >= 16) return;
  __syncwarp();
  out[t] = a[t + 16];  // check: race (read after write) on shared 'a' | uninitialised shared 'a'
}
PLANTED(written_before_a_return, nullptr);

__global__ void mma_of_half_a_warp_kernel(const float*, float* out) {
  if (threadIdx.x % 32 >= 16) return;
  const uint32_t a[4] = {}, b[2] = {};
  float c[4] = {};
  convlab::mma_m16n8k8_tf32(c, a, b, c);  // both: a tensor core operation needs all 32 lanes of the warp
  out[threadIdx.x] = c[0];
}
PLANTED(mma_of_half_a_warp, nullptr);

__global__ void lane_not_in_mask_kernel(const float* in, float* out) {
  out[threadIdx.x] = __shfl_sync(0x0000ffffu, in[threadIdx.x], 0);  // both: __shfl_sync: the calling lane
}
PLANTED(lane_not_in_mask, nullptr);

__global__ void different_collectives_kernel(const float* in, float* out) {
  float v = in[threadIdx.x];
  if (threadIdx.x % 2) v = __shfl_xor_sync(0xffffffffu, v, 1);  // both: warp divergence: lanes of one warp meet in different collectives
  else v = __shfl_down_sync(0xffffffffu, v, 1);  // both: warp divergence: lanes of one warp meet in different collectives
  out[threadIdx.x] = v;
}
PLANTED(different_collectives, nullptr);

__global__ void mma_operand_not_rounded_kernel(const float* in, float* out) {
  const uint32_t a[4] = {}, b[2] = {__float_as_uint(in[threadIdx.x]), 0};
  float c[4] = {};
  convlab::mma_m16n8k8_tf32(c, a, b, c);  // both: an operand of B is not rounded to tf32
  out[threadIdx.x] = c[0];
}
PLANTED(mma_operand_not_rounded, nullptr);

__global__ void copy_used_before_wait_kernel(const float* in, float* out) {
  SHARED(float, a, [64]);
  const int t = threadIdx.x;
  if (t < 16) convlab::async_copy<16>(&a[4 * t], &in[4 * t]);  // check: race (write after read) on shared 'a'
  convlab::async_commit();
  __syncthreads();
  out[t] = a[t];  // check: where a cp.async of this thread has not been waited for | uninitialised shared 'a'
  convlab::async_wait<0>();
}
PLANTED(copy_used_before_wait, RIGHT { return in[i]; });

__global__ void copy_never_waited_for_kernel(const float* in, float*) {
  SHARED(float, a, [64]);
  convlab::async_copy<4>(&a[threadIdx.x], &in[threadIdx.x]);  // both: a thread returns with cp.async copies that it never waited for
  convlab::async_commit();
}
PLANTED(copy_never_waited_for, nullptr);

// One block of a warpgroup, with a tile of 64 rows of 32 floats
#define OF_A_WARPGROUP(name) launch(name##_kernel, dim3(1), dim3(128), 64 * 32 * 4 + 1024, nullptr, in, out)
__device__ float* tile_of(const float* in, float* tile) {
  for (int i = threadIdx.x; i < 64 * 32; i += 128) tile[i] = in[i % kElements];
  __syncthreads();
  return tile;
}

__global__ void product_never_waited_for_kernel(const float* in, float* out) {
  DYNAMIC_SHARED(float, memory);
  const auto matrix = convlab::shared_matrix(tile_of(in, convlab::on_swizzle_boundary(memory)));
  float sums[32] = {};
  convlab::wgmma<float>(sums, matrix, matrix);  // both: a thread returns with wgmma products that it never waited for
  convlab::warpgroup_commit();
  out[threadIdx.x] = sums[0];
}
PLANTED_LAUNCH(product_never_waited_for, OF_A_WARPGROUP(product_never_waited_for), nullptr);

__global__ void tile_on_no_swizzle_boundary_kernel(const float* in, float* out) {
  DYNAMIC_SHARED(float, memory);
  const auto matrix = convlab::shared_matrix(tile_of(in, convlab::on_swizzle_boundary(memory) + 32));
  float sums[32] = {};
  convlab::wgmma<float>(sums, matrix, matrix);  // both: must be of a tile on a multiple of 1024 bytes
  convlab::warpgroup_wait_for(sums);
  out[threadIdx.x] = sums[0];
}
PLANTED_LAUNCH(tile_on_no_swizzle_boundary, OF_A_WARPGROUP(tile_on_no_swizzle_boundary), nullptr);

__global__ void tile_written_under_a_product_kernel(const float* in, float* out) {
  DYNAMIC_SHARED(float, memory);
  float* const tile = tile_of(in, convlab::on_swizzle_boundary(memory));
  const auto matrix = convlab::shared_matrix(tile);
  float sums[32] = {};
  convlab::wgmma<float>(sums, matrix, matrix);  // check: race (read after write) on shared 'dynamic shared memory'
  convlab::warpgroup_commit();
  __syncthreads();
  tile[threadIdx.x] = 0;  // check: race (write after read) on shared 'dynamic shared memory'
  convlab::warpgroup_wait_for(sums);
  out[threadIdx.x] = sums[0];
}
PLANTED_LAUNCH(tile_written_under_a_product, OF_A_WARPGROUP(tile_written_under_a_product), nullptr);

// No bug: A out of registers is A out of shared memory
template <class T> __device__ float difference(const float* in, T* tile) {
  tile_of(in, reinterpret_cast<float*>(tile));
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4, t = lane % 4;
  uint32_t a[4];
  for (int i = 0; i < 4; i++) {  // the second chunk is where the row's number exchanges it to
    const float* of_row = reinterpret_cast<float*>(tile) + (row + i % 2 * 8) * 32;
    a[i] = __float_as_uint(of_row[(i / 2 ^ row % 8) * 4 + t]);
  }
  const auto matrix = convlab::shared_matrix(tile);
  float sums[32] = {}, others[32];
  convlab::warpgroup_begin();
  convlab::wgmma<T>(sums, matrix, matrix);
  convlab::wgmma<T, false>(others, a, matrix);
  convlab::warpgroup_commit();
  convlab::warpgroup_wait_for(sums);
  convlab::warpgroup_wait_for(others);
  float most = sums[0] != 0 ? 0 : 1;
  for (int i = 0; i < 32; i++) most = fmaxf(most, fabsf(sums[i] - others[i]));
  return most;
}
__global__ void products_of_registers_kernel(const float* in, float* out) {
  DYNAMIC_SHARED(float, memory);
  float* const tile = convlab::on_swizzle_boundary(memory);
  const float of_tf32 = difference<float>(in, tile);
  __syncthreads();  // nobody reads the tile
  out[threadIdx.x] = of_tf32 + difference<convlab::float16>(in, reinterpret_cast<convlab::float16*>(tile));
}
PLANTED_LAUNCH(products_of_registers, OF_A_WARPGROUP(products_of_registers), RIGHT { return 0; });

__global__ void register_written_under_a_product_kernel(const float* in, float* out) {
  DYNAMIC_SHARED(float, memory);
  const auto matrix = convlab::shared_matrix(tile_of(in, convlab::on_swizzle_boundary(memory)));
  float sums[32] = {};
  uint32_t a[4] = {1, 2, 3, 4};
  convlab::wgmma<float>(sums, a, matrix);  // both: registers of a have been written before the products were waited for
  convlab::warpgroup_commit();
  a[1] = threadIdx.x;
  convlab::warpgroup_wait_for(sums);
  out[threadIdx.x] = sums[0] + a[1];
}
PLANTED_LAUNCH(register_written_under_a_product, OF_A_WARPGROUP(register_written_under_a_product), nullptr);
__global__ void lines_on_no_swizzle_boundary_kernel(const float* in, float* out) {
  DYNAMIC_SHARED(float, memory);
  const auto matrix = convlab::shared_lines(tile_of(in, convlab::on_swizzle_boundary(memory)) + 256 + 32, 1024);
  float sums[32] = {};
  convlab::wgmma_lines<convlab::float16>(sums, matrix, matrix);  // both: begin on multiples of 1024 bytes
  convlab::warpgroup_wait_for(sums);
  out[threadIdx.x] = sums[0];
}
PLANTED_LAUNCH(lines_on_no_swizzle_boundary, OF_A_WARPGROUP(lines_on_no_swizzle_boundary), nullptr);

}  // namespace
}  // namespace planted
