// The gradient of a convolution to its input. Check it without a GPU:
//
//   python -m convlab.check FILE --like conv2d_dgrad
//
//   dx[n, c, h, v] = sum over k, r, s of dy[n, k, p, q] w[k, c, r, s]   where p stride_h - pad_h + r dilation_h = h, likewise q
//
// device/device.h is the language: SHARED(float, tile, [16][16]) is shared memory, launch(...) a launch.
#include "device/device.h"
#include "geometry/conv2d.h"

using namespace convlab;

constexpr int kThreads = 256;

// Why the kernel cannot do a problem; null when it can. A kernel for every problem needs none.
inline const char* refusal(const Conv2d& g) {
  if (g.groups != 1) return "has no groups";
  return nullptr;
}

// dy [N, K, P, Q], w [K, C, R, S] -> dx [N, C, H, W].  grid ceil(NCHW / 256), a thread an element
__global__ void __launch_bounds__(kThreads) my_kernel(Conv2d g, const float* dy, const float* w, float* dx) {
  const long long i = (long long)blockIdx.x * kThreads + threadIdx.x;
  if (i >= (long long)g.N * g.C * g.H * g.W) return;
  const int v = int(i % g.W), h = int(i / g.W % g.H), c = int(i / g.W / g.H % g.C), n = int(i / g.W / g.H / g.C);

  float sum = 0;
  for (int k = 0; k < g.K; k++)
    for (int r = 0; r < g.R; r++)
      for (int s = 0; s < g.S; s++) {
        const int p = h + g.pad_h - r * g.dilation_h, q = v + g.pad_w - s * g.dilation_w;  // times the stride
        if (p < 0 || q < 0 || p % g.stride_h || q % g.stride_w || p / g.stride_h >= g.P || q / g.stride_w >= g.Q)
          continue;
        sum += dy[((long long)(n * g.K + k) * g.P + p / g.stride_h) * g.Q + q / g.stride_w] *
               w[((k * g.C + c) * g.R + r) * g.S + s];
      }
  dx[i] = sum;
}

// What is checked. Pointers are to device memory; dx is not empty.
void conv2d_dgrad(const Conv2d& g, const float* dy, const float* w, float* dx, cudaStream_t stream) {
  launch(my_kernel, blocks_for((long long)g.N * g.C * g.H * g.W, kThreads), dim3(kThreads), 0, stream, g, dy, w, dx);
}
