// The sum of an array: a tree in each block's shared memory, the blocks' sums added up by the host.
#include <cuda_runtime.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

__global__ void reduce(const float* x, float* sums, int n) {
  __shared__ float part[256];
  int t = threadIdx.x, i = blockIdx.x * 256 + t;
  part[t] = i < n ? x[i] : 0.0f;
  __syncthreads();
  for (int half = 128; half > 0; half /= 2) {
    if (t < half) part[t] += part[t + half];
    __syncthreads();
  }
  if (t == 0) sums[blockIdx.x] = part[0];
}

int main(int argc, char** argv) {
  const int n = 1000, blocks = (n + 255) / 256;
  std::vector<float> x(n, 0.5f), sums(blocks);
  float *dx, *dsums;
  cudaMalloc(&dx, n * sizeof(float));
  cudaMalloc(&dsums, blocks * sizeof(float));
  cudaMemcpy(dx, x.data(), n * sizeof(float), cudaMemcpyHostToDevice);
  reduce<<<blocks, 256>>>(dx, dsums, n);
  cudaMemcpy(sums.data(), dsums, blocks * sizeof(float), cudaMemcpyDeviceToHost);
  float sum = 0;
  for (float s : sums) sum += s;
  printf("%s: %g, expected %g\n", argc == 1 && argv[0] ? "the sum" : "?", sum, 0.5f * n);
  cudaFree(dx);
  cudaFree(dsums);
  if (std::fabs(sum - 0.5f * n) > 1e-3f) exit(1);
}
