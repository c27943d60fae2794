#include "planted.h"

namespace planted {
namespace {

__global__ void stack_overflow_kernel(const float* in, float* out) {  // both: below the thread's stack
  volatile float local[60000];
  for (int i = 0; i < 60000; i++) local[i] = in[i % kElements];  // both: below the thread's stack
  out[threadIdx.x] = local[threadIdx.x];
}
PLANTED(stack_overflow, nullptr);

__global__ void dynamic_memory_too_short_kernel(const float* in, float* out) {
  DYNAMIC_SHARED(float, tile);
  tile[threadIdx.x] = in[threadIdx.x];  // check: shared memory out of bounds: write of 4 bytes at byte 128 of 'dynamic shared memory', which has 128 | out of bounds
  out[threadIdx.x] = tile[threadIdx.x];
}
PLANTED_LAUNCH(dynamic_memory_too_short, launch(dynamic_memory_too_short_kernel, dim3(1), dim3(64), 128, nullptr, in, out), nullptr);

__global__ void no_dynamic_memory_kernel(const float*, float*) {
  DYNAMIC_SHARED(float, tile);  // both: launched with 0 bytes of dynamic shared memory
  tile[threadIdx.x] = 0;
}
PLANTED(no_dynamic_memory, nullptr);

__global__ void too_much_static_memory_kernel(const float*, float*) {
  SHARED(float, tile, [13000]);  // both: more than the 48 KiB that static arrays may take
  tile[threadIdx.x] = 0;
}
PLANTED(too_much_static_memory, nullptr);

__global__ void too_much_dynamic_memory_kernel(const float*, float*) {}  // both: more dynamic shared memory than the 227 KiB a block can have
PLANTED_LAUNCH(too_much_dynamic_memory, launch(too_much_dynamic_memory_kernel, dim3(1), dim3(64), 240000, nullptr, in, out), nullptr);

__global__ void too_many_threads_kernel(const float*, float*) {}  // both: 2048 threads a block, at most 1024 are allowed
PLANTED_LAUNCH(too_many_threads, launch(too_many_threads_kernel, dim3(1), dim3(64, 32), 0, nullptr, in, out), nullptr);

template <int n> __global__ void __launch_bounds__(n / 2) beyond_launch_bounds_kernel(const float*, float*) {}  // both: 64 threads a block, but the kernel's __launch_bounds__ says at most 32
PLANTED_LAUNCH(beyond_launch_bounds, launch(beyond_launch_bounds_kernel<64>, dim3(1), dim3(64), 0, nullptr, in, out), nullptr);

__global__ void grid_too_high_kernel(const float*, float*) {}  // both: grid.y is 65536, at most 65535 is allowed
PLANTED_LAUNCH(grid_too_high, launch(grid_too_high_kernel, dim3(1, 65536), dim3(64), 0, nullptr, in, out), nullptr);

__global__ void grid_too_deep_kernel(const float*, float*) {}  // both: grid.z is 65536, at most 65535 is allowed
PLANTED_LAUNCH(grid_too_deep, launch(grid_too_deep_kernel, dim3(1, 1, 65536), dim3(64), 0, nullptr, in, out), nullptr);

__global__ void empty_grid_kernel(const float*, float*) {}  // both: the grid has no blocks
PLANTED_LAUNCH(empty_grid, launch(empty_grid_kernel, dim3(0), dim3(64), 0, nullptr, in, out), nullptr);

}  // namespace
}  // namespace planted
