// A leaky ReLU in as many words of CUDA as it takes to try them.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <cstdio>
#include <vector>

#define BLOCK 64

static __constant__ float one[1];
__constant__ const int kTwo = 2;
__device__ const float kTable[3] = {0.5f, 1.0f, 2.0f};

typedef void (*Kernel)(const float*, float*, int, float);

template <typename T, int n> __device__ T in_reverse(T value) {
  __shared__ T values[n];
  __shared__ volatile int writers;
  if (threadIdx.x == 0) writers = 0;
  values[n - 1 - threadIdx.x] = value;
  __syncthreads();
  T other = writers == 0 ? values[threadIdx.x] : T(0);
  __syncthreads();
  return other;
}

template <class T> __global__ void deduced(const T* x, T* y, int n, T slope) {
  unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (min(i, n) == n) return;  // of two types
  y[i] = x[i] > 0 ? x[i] : x[i] * slope;
}

template <int block, class T> __global__ void __launch_bounds__(block) partly(T* y, int n, int times = 2) {
  int i = blockIdx.x * block + threadIdx.x;
  T value = in_reverse<T, block>(in_reverse<T, block>(i < n ? y[i] : 0));
  if (i < n) y[i] = value * kTable[1] * (times == kTwo ? one[0] : 0);
}

__global__ void by_name(const float* x, float* y, int n, float slope) {
  __shared__ int largest, votes[2];
  extern __shared__ float unused[];
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (threadIdx.x == 0) largest = -1;
  if (threadIdx.x < 2) votes[threadIdx.x] = 0;
  __syncthreads();
  if (i < n) {
    atomicMax(&largest, i);
    atomicAdd(&votes[i % 2], 1);
  }
  __syncthreads();
  if (i >= n) return;
  unsigned left = __ballot_sync(0xffffffff, 1);
  bool right = largest == min(n - 1, int(blockIdx.x * blockDim.x + blockDim.x - 1)) && __popc(left) > 0 && __all_sync(left, votes[0] + votes[1] > 0);
  __half h = __float2half(2.0f);
  __half2 pair = __floats2half2_rn(1.0f, 3.0f);
  h = __hfma(h, __low2half(pair), __high2half(pair)) - h;                       // 2 * 1 + 3 - 2
  __nv_bfloat16 b = __float2bfloat16(4.0f) * __float2bfloat16(0.25f);           // 1
  right = right && __half2float(h) == 3.0f && __bfloat162float(b) == 1.0f && __float_as_int(1.0f) == 0x3f800000;
  if (i == 3) printf("three is %g\n", x[i]);
  y[i] = right ? (x[i] > 0 ? x[i] : x[i] * slope) : 0;
  if (n < 0) y[i] = unused[0];
}

namespace {
namespace inner {
__global__ void nothing() {}
}  // namespace inner
}  // namespace

void leaky_relu_forward(const float* x, float* y, int n, float slope, cudaStream_t stream) {
  const int blocks = (n + BLOCK - 1) / BLOCK;
  float host = 1, *copy;
  cudaMemcpyToSymbol(one, &host, sizeof(float));
  inner::nothing<<<1, 1, 0, stream>>>();
  deduced<<<blocks, BLOCK>>>(x, y, n, slope);
  partly<BLOCK><<<blocks, BLOCK>>>(y, n);
  cudaMalloc(&copy, n * sizeof(float));
  cudaMemcpy(copy, y, n * sizeof(float), cudaMemcpyDeviceToDevice);
  std::vector<float> on_host(n);
  cudaMemcpy(on_host.data(), copy, n * sizeof(float), cudaMemcpyDeviceToHost);
  Kernel kernels[] = {by_name};
  kernels[0]<<<dim3(blocks), dim3(BLOCK)>>>(x, copy, n, slope);
  cudaMemcpy(y, copy, n * sizeof(float), cudaMemcpyDeviceToDevice);
  cudaFree(copy);
}

int main() {
  cudaEvent_t begin, end;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  cudaEventRecord(begin);
  float *x, *y, ms;
  cudaMalloc((void**)&x, 4096);
  cudaMalloc((void**)&y, 4096);
  leaky_relu_forward(x, y, 1024, 0.1f, 0);
  cudaEventRecord(end);
  cudaEventElapsedTime(&ms, begin, end);
  printf("%f ms: %s\n", ms, cudaGetErrorString(cudaGetLastError()));
}
