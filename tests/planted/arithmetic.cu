#include "planted.h"

namespace planted {
namespace {

__global__ void division_by_zero_kernel(const float*, float* out) {
  out[threadIdx.x] = float(int(blockDim.x) / int(blockIdx.x));  // check: integer division by zero  // plain on x86-64: integer division by zero
}
PLANTED(division_by_zero, nullptr);

__global__ void index_overflow_kernel(const float* in, float* out) {
  const int rows = 1 << 20;
  const int index = rows * int(blockDim.x * blockDim.x);  // check: signed integer overflow:
  out[threadIdx.x] = in[index + threadIdx.x];
}
PLANTED(index_overflow, nullptr);

__global__ void shift_too_far_kernel(const float*, float* out) {
  out[threadIdx.x] = float(1 << threadIdx.x);  // check: shift of 1 by
}
PLANTED(shift_too_far, nullptr);

__global__ void trap_kernel(const float*, float*) {
  if (threadIdx.x == 3) __trap();  // both: __trap()
}
PLANTED(trap, nullptr);

}  // namespace
}  // namespace planted
