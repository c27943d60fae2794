// The gradient of filters by atomics: a block an image and an output channel, each thread some positions of dy.
#include <cuda_runtime.h>

__global__ void wgrad(const float* dy, const float* x, float* dw, int C, int H, int W, int K, int R, int S, int P, int Q) {
  __shared__ float part;
  int k = blockIdx.y, n = blockIdx.z, e = blockIdx.x, s = e % S, r = e / S % R, c = e / S / R;
  if (threadIdx.x == 0) part = 0;
  __syncthreads();
  float sum = 0;
  for (int i = threadIdx.x; i < P * Q; i += blockDim.x)
    sum += dy[(n * K + k) * P * Q + i] * x[((n * C + c) * H + i / Q + r) * W + i % Q + s];
  sum += __shfl_xor_sync(0xffffffff, sum, 1);
  if (threadIdx.x % 2 == 0) atomicAdd(&part, sum);
  __syncthreads();
  if (threadIdx.x == 0) atomicAdd(&dw[(k * C + c) * R * S + e % (R * S)], part);
}

void conv2d_wgrad(const float* dy, const float* x, float* dw, int N, int C, int H, int W, int K, int R, int S) {
  int P = H - R + 1, Q = W - S + 1;
  cudaMemset(dw, 0, K * C * R * S * sizeof(float));
  wgrad<<<dim3(C * R * S, K, N), 64>>>(dy, x, dw, C, H, W, K, R, S, P, Q);
}
