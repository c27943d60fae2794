// How many float32 multiply-adds a GPU makes a second: chains in registers, no memory. The ceiling of every kernel
// without tensor cores. Compiled by ceilings.py on the machine it measures.
#include <cuda_runtime.h>

namespace {

constexpr int kThreads = 256, kBlocksEach = 8;  // 64 warps a multiprocessor where it holds so many
constexpr int kChains = 16, kSteps = 64;  // more results under way than the four cycles of one; steps are unrolled

__global__ void __launch_bounds__(kThreads) ffma_kernel(int loops, float a, float b, float* out) {
  float x[kChains];
#pragma unroll
  for (int i = 0; i < kChains; i++) x[i] = threadIdx.x + i;
#pragma unroll 1
  for (int loop = 0; loop < loops; loop++) {
#pragma unroll
    for (int step = 0; step < kSteps; step++)
#pragma unroll
      for (int i = 0; i < kChains; i++) x[i] = fmaf(x[i], a, b);
  }
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kChains; i++) sum += x[i];
  if (sum == 1.2345f) *out = sum;  // never, but the compiler cannot know
}

}  // namespace

// Operations a second, two for a multiply-add, in the best of `tries` runs; below 0, minus a cudaError_t.
extern "C" double convlab_ffma_peak(int tries) {
  int device = 0, sms = 0;
  float* out = nullptr;
  cudaEvent_t before, after;
  if (cudaError_t e = cudaGetDevice(&device)) return -double(e);
  if (cudaError_t e = cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device)) return -double(e);
  if (cudaError_t e = cudaMalloc(&out, sizeof(float))) return -double(e);
  cudaEventCreate(&before), cudaEventCreate(&after);
  const int blocks = sms * kBlocksEach, loops = 4000;
  double best = 0;
  for (int i = 0; i <= tries; i++) {  // the first warms up
    cudaEventRecord(before);
    ffma_kernel<<<blocks, kThreads>>>(loops, 0.999f, 0.001f, out);
    cudaEventRecord(after);
    if (cudaError_t e = cudaEventSynchronize(after)) return -double(e);
    if (cudaError_t e = cudaGetLastError()) return -double(e);
    float ms = 0;
    cudaEventElapsedTime(&ms, before, after);
    const double rate = 2.0 * blocks * kThreads * double(loops) * kSteps * kChains / (ms * 1e-3);
    if (i && rate > best) best = rate;
  }
  cudaEventDestroy(before), cudaEventDestroy(after), cudaFree(out);
  return best;
}
