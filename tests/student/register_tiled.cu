// A thread makes four output channels of one position: a value of x from shared memory is used four times.
#include <cuda_runtime.h>

template <int kColumns, int kRows, int kMaps>
__global__ void conv_registers(const float* x, const float* w, const float* bias, float* y, int C, int H, int W, int K, int R, int S, int P, int Q, int pad) {
  constexpr int kMaxR = 5;
  __shared__ float tile[kRows + kMaxR - 1][kColumns + kMaxR - 1];
  const int groups = (K + kMaps - 1) / kMaps, first = blockIdx.z % groups * kMaps, n = blockIdx.z / groups;
  const int p = blockIdx.y * kRows + threadIdx.y, q = blockIdx.x * kColumns + threadIdx.x;
  float sums[kMaps];
#pragma unroll
  for (int i = 0; i < kMaps; i++) sums[i] = bias && first + i < K ? bias[first + i] : 0.0f;
  for (int c = 0; c < C; c++) {
    const float* plane = x + (n * C + c) * H * W;
    for (int i = threadIdx.y; i < kRows + R - 1; i += kRows)
      for (int j = threadIdx.x; j < kColumns + S - 1; j += kColumns) {
        const int h = int(blockIdx.y) * kRows + i - pad, v = int(blockIdx.x) * kColumns + j - pad;
        tile[i][j] = h >= 0 && h < H && v >= 0 && v < W ? plane[h * W + v] : 0.0f;
      }
    __syncthreads();
    for (int r = 0; r < R; r++)
      for (int s = 0; s < S; s++) {
        const float value = tile[threadIdx.y + r][threadIdx.x + s];
#pragma unroll
        for (int i = 0; i < kMaps; i++)
          if (first + i < K) sums[i] += value * w[(((first + i) * C + c) * R + r) * S + s];
      }
    __syncthreads();
  }
  if (p >= P || q >= Q) return;
#pragma unroll
  for (int i = 0; i < kMaps; i++)
    if (first + i < K) y[((n * K + first + i) * P + p) * Q + q] = sums[i];
}

const char* refusal(int N, int C, int H, int W, int K, int R, int S, int stride, int pad) {
  return stride != 1 || R > 5 || S > 5 ? "takes stride 1 and filters to 5 x 5" : nullptr;
}

void conv2d_forward(const float* x, const float* w, const float* bias, float* y, int N, int C, int H, int W, int K, int R, int S, int stride, int pad) {
  const int P = H + 2 * pad - R + 1, Q = W + 2 * pad - S + 1;
  const dim3 block(32, 4), grid((Q + 31) / 32, (P + 3) / 4, N * ((K + 3) / 4));
  conv_registers<32, 4, 4><<<grid, block>>>(x, w, bias, y, C, H, W, K, R, S, P, Q, pad);
}
