#include "planted.h"

namespace planted {
namespace {

__global__ void missing_barrier_after_load_kernel(const float* in, float* out) {
  SHARED(float, tile, [64]);
  const int t = threadIdx.x;
  tile[t] = in[t];
  out[t] = tile[(t + 37) % 64];  // check: race (read after write) on shared 'tile' | race (read before write) on shared 'tile'
}
PLANTED(missing_barrier_after_load, RIGHT { return in[(i + 37) % 64]; });

__global__ void missing_barrier_before_reload_kernel(const float* in, float* out) {
  SHARED(float, tile, [64]);
  const int t = threadIdx.x;
  float sum = 0;
  for (int k = 0; k < 3; k++) {
    tile[t] = in[64 * k + t];  // check: race (write after read) on shared 'tile'
    __syncthreads();
    sum += tile[(t + 37) % 64];  // check: race (read after write) on shared 'tile'
  }
  out[t] = sum;
}
PLANTED(missing_barrier_before_reload, RIGHT { return in[(i + 37) % 64] + in[64 + (i + 37) % 64] + in[128 + (i + 37) % 64]; });

__global__ void missing_barrier_between_uses_kernel(const float* in, float* out) {
  SHARED(float, a, [64]);
  const int t = threadIdx.x;
  a[t] = in[t];
  __syncthreads();
  const float neighbour = a[t ^ 1];  // check: race (read after write) on shared 'a'
  a[t] = 2 * neighbour;              // check: race (write after read) on shared 'a'
  out[t] = a[t];
}
PLANTED(missing_barrier_between_uses, RIGHT { return 2 * in[i ^ 1]; });

__global__ void missing_syncwarp_kernel(const float* in, float* out) {
  SHARED(float, a, [64]);
  const int t = threadIdx.x;
  a[t] = in[t];        // check: race (write after read) on shared 'a'
  out[t] = a[t ^ 1];   // check: race (read after write) on shared 'a' | race (read before write) on shared 'a'
}
PLANTED(missing_syncwarp, RIGHT { return in[i ^ 1]; });

__global__ void different_barriers_kernel(const float*, float*) {
  if (threadIdx.x < 32) {
    __syncthreads();  // both: barrier divergence: threads of the block wait in different __syncthreads
  } else {
    __syncthreads();
  }
}
PLANTED(different_barriers, nullptr);

__global__ void different_barriers_on_one_line_kernel(const float*, float*) {
  if (threadIdx.x < 32) __syncthreads(); else __syncthreads();  // both: barrier divergence: threads of the block wait in different __syncthreads
}
PLANTED(different_barriers_on_one_line, nullptr);

__global__ void early_exit_kernel(const float*, float*) {
  if (threadIdx.x >= 48) return;
  __syncthreads();  // both: barrier divergence: 48 of 64 threads wait in __syncthreads, the others have returned
}
PLANTED(early_exit, nullptr);

__global__ void extra_barriers_in_one_thread_kernel(const float*, float*) {
  __syncthreads();
  if (threadIdx.x == 0)
    for (int i = 0; i < 3; i++) __syncthreads();  // both: barrier divergence: 1 of 64 threads wait in __syncthreads, the others have returned
}
PLANTED(extra_barriers_in_one_thread, nullptr);

__global__ void deadlock_kernel(const float*, float*) {
  if (threadIdx.x < 8) __syncwarp();  // both: deadlock: no thread of the block can go on
  else __syncthreads();
}
PLANTED(deadlock, nullptr);

__global__ void endless_loop_kernel(const float* in, float* out) {
  const bool endless = threadIdx.x == 7;  // read here: the loop's instructions are all on its own line
  float sum = 0;
  for (int i = 0; endless || i < 3; i = (i + 1) % 64) sum += in[i];  // both: a thread has run for
  out[threadIdx.x] = sum;
}
PLANTED(endless_loop, nullptr);

__global__ void wait_for_another_thread_kernel(const float*, float* out) {
  SHARED(int, ready, [2]);
  if (threadIdx.x < 2) ready[threadIdx.x] = 0;
  __syncthreads();
  volatile int* flags = ready;
  if (threadIdx.x % 32 == 0) {
    flags[threadIdx.x / 32] = 1;
    while (!flags[1 - threadIdx.x / 32]) {}  // both: a thread has run for
  }
  out[threadIdx.x] = 1;
}
PLANTED(wait_for_another_thread, nullptr);

}  // namespace
}  // namespace planted
