// The gradient of a convolution to its input. Check it without a GPU:
//
//   python -m convlab.check FILE --like conv2d_dgrad
//
//   dx[n, c, h, v] = sum over k, r, s of dy[n, k, p, q] w[k, c, r, s]   where p stride - pad + r = h, likewise q
//
// The launcher may take more, or less: python -m convlab.check --forms --like conv2d_dgrad lists what.
#include <cuda_runtime.h>

constexpr int kThreads = 256;

// dy [N, K, P, Q], w [K, C, R, S] -> dx [N, C, H, W].  grid ceil(NCHW / 256), a thread an element
__global__ void my_kernel(const float* dy, const float* w, float* dx, int N, int C, int H, int W, int K, int R, int S,
                          int P, int Q, int stride, int pad) {
  const int i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= N * C * H * W) return;
  const int v = i % W, h = i / W % H, c = i / W / H % C, n = i / W / H / C;

  float sum = 0;
  for (int k = 0; k < K; k++)
    for (int r = 0; r < R; r++)
      for (int s = 0; s < S; s++) {
        const int p = h + pad - r, q = v + pad - s;  // times the stride
        if (p < 0 || q < 0 || p % stride || q % stride || p / stride >= P || q / stride >= Q) continue;
        sum += dy[((n * K + k) * P + p / stride) * Q + q / stride] * w[((k * C + c) * R + r) * S + s];
      }
  dx[i] = sum;
}

// What is checked. Pointers are to device memory; dx is not empty.
void conv2d_dgrad(const float* dy, const float* w, float* dx, int N, int C, int H, int W, int K, int R, int S,
                  int stride, int pad) {
  const int P = (H + 2 * pad - R) / stride + 1, Q = (W + 2 * pad - S) / stride + 1;
  const int threads = N * C * H * W;
  my_kernel<<<(threads + kThreads - 1) / kThreads, kThreads>>>(dy, w, dx, N, C, H, W, K, R, S, P, Q, stride, pad);
}
