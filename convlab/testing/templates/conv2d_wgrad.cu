// The gradient of a convolution to its filters. Check it without a GPU:
//
//   python -m convlab.check FILE --like conv2d_wgrad
//
//   dw[k, c, r, s] = sum over n, p, q of dy[n, k, p, q] x[n, c, p stride - pad + r, q stride - pad + s]
//
// with zeros outside x. The launcher may take more, or less: python -m convlab.check --forms --like conv2d_wgrad lists what.
#include <cuda_runtime.h>

constexpr int kThreads = 256;

// dy [N, K, P, Q], x [N, C, H, W] -> dw [K, C, R, S].  grid ceil(KCRS / 256), a thread an element
__global__ void my_kernel(const float* dy, const float* x, float* dw, int N, int C, int H, int W, int K, int R, int S,
                          int P, int Q, int stride, int pad) {
  const int i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= K * C * R * S) return;
  const int s = i % S, r = i / S % R, c = i / S / R % C, k = i / S / R / C;

  float sum = 0;
  for (int n = 0; n < N; n++)
    for (int p = 0; p < P; p++)
      for (int q = 0; q < Q; q++) {
        const int h = p * stride - pad + r, v = q * stride - pad + s;
        if (h < 0 || h >= H || v < 0 || v >= W) continue;
        sum += dy[((n * K + k) * P + p) * Q + q] * x[((n * C + c) * H + h) * W + v];
      }
  dw[i] = sum;
}

// What is checked. Pointers are to device memory; dw is not empty.
void conv2d_wgrad(const float* dy, const float* x, float* dw, int N, int C, int H, int W, int K, int R, int S,
                  int stride, int pad) {
  const int P = (H + 2 * pad - R) / stride + 1, Q = (W + 2 * pad - S) / stride + 1;
  const int threads = K * C * R * S;
  my_kernel<<<(threads + kThreads - 1) / kThreads, kThreads>>>(dy, x, dw, N, C, H, W, K, R, S, P, Q, stride, pad);
}
