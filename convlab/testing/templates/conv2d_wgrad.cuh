// The gradient of a convolution to its filters. Check it without a GPU:
//
//   python -m convlab.check FILE --like conv2d_wgrad
//
//   dw[k, c, r, s] = sum over n, p, q of dy[n, k, p, q] x[n, c, p stride_h - pad_h + r dilation_h, q stride_w - pad_w + s dilation_w]
//
// with zeros outside x. device/device.h is the language: SHARED(float, tile, [16][16]) is shared memory, launch(...) a
// launch.
#include "device/device.h"
#include "geometry/conv2d.h"

using namespace convlab;

constexpr int kThreads = 256;

// Why the kernel cannot do a problem; null when it can. A kernel for every problem needs none.
inline const char* refusal(const Conv2d& g) {
  if (g.groups != 1) return "has no groups";
  return nullptr;
}

// dy [N, K, P, Q], x [N, C, H, W] -> dw [K, C, R, S].  grid ceil(KCRS / 256), a thread an element
__global__ void __launch_bounds__(kThreads) my_kernel(Conv2d g, const float* dy, const float* x, float* dw) {
  const int i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= g.K * g.C * g.R * g.S) return;
  const int s = i % g.S, r = i / g.S % g.R, c = i / g.S / g.R % g.C, k = i / g.S / g.R / g.C;

  float sum = 0;
  for (int n = 0; n < g.N; n++)
    for (int p = 0; p < g.P; p++)
      for (int q = 0; q < g.Q; q++) {
        const int h = p * g.stride_h - g.pad_h + r * g.dilation_h, v = q * g.stride_w - g.pad_w + s * g.dilation_w;
        if (h < 0 || h >= g.H || v < 0 || v >= g.W) continue;
        sum += dy[((long long)(n * g.K + k) * g.P + p) * g.Q + q] * x[((long long)(n * g.C + c) * g.H + h) * g.W + v];
      }
  dw[i] = sum;
}

// What is checked. Pointers are to device memory; dw is not empty.
void conv2d_wgrad(const Conv2d& g, const float* dy, const float* x, float* dw, cudaStream_t stream) {
  launch(my_kernel, blocks_for((long long)g.K * g.C * g.R * g.S, kThreads), dim3(kThreads), 0, stream, g, dy, x, dw);
}
