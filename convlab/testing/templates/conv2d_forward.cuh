// A convolution of one's own. Check it without a GPU:
//
//   python -m convlab.check FILE --like conv2d_forward
//
//   y[n, k, p, q] = bias[k] + sum over c, r, s of x[n, c, p stride_h - pad_h + r dilation_h, q stride_w - pad_w + s dilation_w] w[k, c, r, s]
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

// x [N, C, H, W], w [K, C, R, S], bias [K] or null -> y [N, K, P, Q].  grid ceil(NKPQ / 256), a thread an output
__global__ void __launch_bounds__(kThreads)
    my_kernel(Conv2d g, const float* x, const float* w, const float* bias, float* y) {
  const long long i = (long long)blockIdx.x * kThreads + threadIdx.x;
  if (i >= (long long)g.N * g.K * g.P * g.Q) return;
  const int q = int(i % g.Q), p = int(i / g.Q % g.P), k = int(i / g.Q / g.P % g.K), n = int(i / g.Q / g.P / g.K);

  float sum = bias ? bias[k] : 0.0f;
  for (int c = 0; c < g.C; c++)
    for (int r = 0; r < g.R; r++)
      for (int s = 0; s < g.S; s++) {
        const int h = p * g.stride_h - g.pad_h + r * g.dilation_h, v = q * g.stride_w - g.pad_w + s * g.dilation_w;
        if (h < 0 || h >= g.H || v < 0 || v >= g.W) continue;
        sum += x[((long long)(n * g.C + c) * g.H + h) * g.W + v] * w[((k * g.C + c) * g.R + r) * g.S + s];
      }
  y[i] = sum;
}

// What is checked. Pointers are to device memory; y is not empty.
void conv2d_forward(const Conv2d& g, const float* x, const float* w, const float* bias, float* y, cudaStream_t stream) {
  launch(my_kernel, blocks_for((long long)g.N * g.K * g.P * g.Q, kThreads), dim3(kThreads), 0, stream, g, x, w, bias,
         y);
}
