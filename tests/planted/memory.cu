#include "dtype.h"
#include "planted.h"

namespace planted {

float* volatile no_memory = nullptr;  // visible to other files, so that the compiler cannot know what they point to
float host_array[64];
float* volatile host_memory = host_array;

namespace {

__global__ void shared_write_out_of_bounds_kernel(const float* in, float* out) {
  SHARED(float, a, [64]);
  SHARED(float, b, [64]);
  float* p = a;
  p[threadIdx.x + 1] = in[threadIdx.x];  // check: shared memory out of bounds: write of 4 bytes at byte 256 of 'a', which has 256
  __syncthreads();
  b[threadIdx.x] = p[threadIdx.x + 1];
  out[threadIdx.x] = b[threadIdx.x];
}
PLANTED(shared_write_out_of_bounds, nullptr);

__global__ void inner_index_out_of_bounds_kernel(const float*, float* out) {
  SHARED(float, a, [4][64]);
  const int t = threadIdx.x;
  for (int k = 0; k < 4; k++) a[k][t] = 0;
  __syncthreads();
  out[t] = a[1][t + 7];  // check: is outside an array of type 'float [64]'
}
PLANTED(inner_index_out_of_bounds, nullptr);

__global__ void uninitialised_shared_read_kernel(const float* in, float* out) {
  SHARED(float, a, [64]);
  if (threadIdx.x != 5) a[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = a[63 - threadIdx.x];  // check: read of uninitialised shared 'a' element 5 (byte 20)
}
PLANTED(uninitialised_shared_read, RIGHT { return in[63 - i]; });

__global__ void global_read_out_of_bounds_kernel(const float* in, float* out) {
  out[threadIdx.x] = in[kElements + threadIdx.x];  // both: behind the end of 'in' (1024 bytes)
}
PLANTED(global_read_out_of_bounds, nullptr);

__global__ void read_before_the_buffer_kernel(const float* in, float* out) {
  out[threadIdx.x] = in[int(threadIdx.x) - 64];  // check: bytes before 'in' (1024 bytes)
}
PLANTED(read_before_the_buffer, nullptr);

__global__ void wild_write_kernel(const float*, float* out) {
  out[int(threadIdx.x) - 70000000] = 1;  // both: illegal memory access | device memory out of bounds
}
PLANTED(wild_write, nullptr);

__global__ void null_pointer_kernel(const float* in, float*) {
  no_memory[threadIdx.x] = in[threadIdx.x];  // both: null | not in device memory
}
PLANTED(null_pointer, nullptr);

__global__ void write_to_input_kernel(const float* in, float*) {
  const_cast<float*>(in)[threadIdx.x] = 0;  // both: which the kernel may only read
}
PLANTED(write_to_input, nullptr);

__global__ void host_pointer_kernel(const float* in, float*) {
  host_memory[threadIdx.x] = in[threadIdx.x];  // check: neither shared, nor device, nor constant memory
}
PLANTED(host_pointer, nullptr);

__global__ void another_threads_variable_kernel(const float* in, float* out) {
  SHARED(const float*, address, [64]);
  volatile float own = in[threadIdx.x];
  address[threadIdx.x] = const_cast<const float*>(&own);
  __syncthreads();
  out[threadIdx.x] = *address[threadIdx.x ^ 1];  // check: on the stack of another thread
  __syncthreads();
}
PLANTED(another_threads_variable, nullptr);

__global__ void read_of_unwritten_output_kernel(const float* in, float* out) {
  out[threadIdx.x] += in[threadIdx.x];  // check: read of uninitialised device memory 'out'
}
PLANTED(read_of_unwritten_output, RIGHT { return in[i]; });

__global__ void two_threads_write_one_element_kernel(const float*, float* out) {
  out[threadIdx.x / 2] = float(threadIdx.x);  // check: race (write after write) on device memory 'out'
}
PLANTED(two_threads_write_one_element, nullptr);

__global__ void lost_update_kernel(const float* in, float* out) {
  if (threadIdx.x < 4) out[threadIdx.x] = 0;
  __syncthreads();
  out[threadIdx.x & 3] += in[threadIdx.x];  // check: race (
}
PLANTED(lost_update, nullptr);

__global__ void blocks_write_one_element_kernel(const float* in, float* out) {
  if (threadIdx.x == 0) out[0] = in[0];  // check: race (write after write) on device memory 'out' element 0
}
PLANTED_LAUNCH(blocks_write_one_element, launch(blocks_write_one_element_kernel, dim3(3), dim3(64), 0, nullptr, in, out), nullptr);

__global__ void block_reads_what_another_writes_kernel(const float* in, float* out) {
  if (threadIdx.x) return;
  out[blockIdx.x] = in[blockIdx.x];  // check: race (write after read) on device memory 'out'
  out[64 + blockIdx.x] = out[(blockIdx.x + 1) % 3];  // check: race (read after write) on device memory 'out' | uninitialised device memory 'out'
}
PLANTED_LAUNCH(block_reads_what_another_writes, launch(block_reads_what_another_writes_kernel, dim3(3), dim3(64), 0, nullptr, in, out), nullptr);

__global__ void read_beside_atomics_kernel(const float* in, float* out) {
  if (threadIdx.x == 0) out[0] = 0;
  __syncthreads();
  atomicAdd(&out[0], in[threadIdx.x]);  // check: race (write after read) on device memory 'out'
  out[64 + threadIdx.x] = out[0];  // check: race (read after write) on device memory 'out'
}
PLANTED(read_beside_atomics, nullptr);

__global__ void misaligned_vector_store_kernel(const float*, float* out) {
  convlab::store4(&out[threadIdx.x / 4 * 4 + 1], make_float4(1, 2, 3, 4));  // check: misaligned  // plain on x86-64: misaligned
}
PLANTED(misaligned_vector_store, nullptr);

// The access is inside an inlined conversion of float16: the report names the line that converts.
__global__ void race_in_a_conversion_kernel(const float* in, float* out) {
  SHARED(convlab::float16, a, [64]);
  const int t = threadIdx.x;
  a[t] = convlab::float16(in[t]);  // check: race (write after read) on shared 'a'
  out[t] = float(a[t ^ 1]);        // check: race (read after write) on shared 'a' | race (read before write) on shared 'a'
}
PLANTED(race_in_a_conversion, nullptr);

// ... and inside load4.
__global__ void vector_load_out_of_bounds_kernel(const float* in, float* out) {
  const float4 v = convlab::load4(&in[4 * threadIdx.x + 4]);  // both: behind the end of 'in' (1024 bytes)
  out[threadIdx.x] = v.x + v.y + v.z + v.w;  // plain: behind the end of 'in' (1024 bytes)
}
PLANTED(vector_load_out_of_bounds, nullptr);

}  // namespace
}  // namespace planted
