// A convolution of one's own. Check it without a GPU:
//
//   python -m convlab.check FILE --like conv2d_forward
//
//   y[n, k, p, q] = bias[k] + sum over c, r, s of x[n, c, p stride - pad + r, q stride - pad + s] w[k, c, r, s]
//
// with zeros outside x. The launcher may take more, or less: python -m convlab.check --forms --like conv2d_forward lists what.
#include <cuda_runtime.h>

constexpr int kThreads = 256;

// x [N, C, H, W], w [K, C, R, S], bias [K] or null -> y [N, K, P, Q].  grid ceil(NKPQ / 256), a thread an output
__global__ void my_kernel(const float* x, const float* w, const float* bias, float* y, int N, int C, int H, int W,
                          int K, int R, int S, int P, int Q, int stride, int pad) {
  const int i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= N * K * P * Q) return;
  const int q = i % Q, p = i / Q % P, k = i / Q / P % K, n = i / Q / P / K;

  float sum = bias ? bias[k] : 0.0f;
  for (int c = 0; c < C; c++)
    for (int r = 0; r < R; r++)
      for (int s = 0; s < S; s++) {
        const int h = p * stride - pad + r, v = q * stride - pad + s;
        if (h < 0 || h >= H || v < 0 || v >= W) continue;
        sum += x[((n * C + c) * H + h) * W + v] * w[((k * C + c) * R + r) * S + s];
      }
  y[i] = sum;
}

// What is checked. Pointers are to device memory; y is not empty.
void conv2d_forward(const float* x, const float* w, const float* bias, float* y, int N, int C, int H, int W, int K,
                    int R, int S, int stride, int pad) {
  const int P = (H + 2 * pad - R) / stride + 1, Q = (W + 2 * pad - S) / stride + 1;
  const int threads = N * K * P * Q;
  my_kernel<<<(threads + kThreads - 1) / kThreads, kThreads>>>(x, w, bias, y, N, C, H, W, K, R, S, P, Q, stride, pad);
}
