// What a 2-D convolution is (cross-correlation, as everywhere in deep learning):
//
//   y[n, k, p, q] = bias[k] + sum over c < C/groups, r < R, s < S of
//                   x[n, group(k) C/groups + c, p stride_h - pad_h + r dilation_h, q stride_w - pad_w + s dilation_w]
//                   w[k, c, r, s]
//
// with zeros outside x. Torch-free, for host and device.
#pragma once

#if defined(__CUDACC__)
#define CONVLAB_HD __host__ __device__
#else
#define CONVLAB_HD
#endif

namespace convlab {

struct Conv2d {
  int N, C, H, W;  // x [N, C, H, W]
  int K, R, S;  // w [K, C/groups, R, S]
  int P, Q;  // y [N, K, P, Q]
  int stride_h, stride_w;
  int pad_h, pad_w;  // zeros above and to the left of x; how many lie below and to the right follows from P and Q
  int dilation_h, dilation_w;
  int groups;

  CONVLAB_HD int Cg() const { return C / groups; }  // input channels a group
  CONVLAB_HD int Kg() const { return K / groups; }  // output channels a group
};

// The convolution of 1 x 1 filters that g is over its unrolled input [N, C R S, P, Q].
inline Conv2d pointwise(Conv2d g) {
  g.C *= g.R * g.S, g.H = g.P, g.W = g.Q;
  g.R = g.S = g.stride_h = g.stride_w = g.dilation_h = g.dilation_w = 1;
  g.pad_h = g.pad_w = 0;
  return g;
}

// Outputs along one dimension of `size` elements between `pad` zeros in all (both sides together).
inline long long conv_outputs(long long size, long long pad, long long kernel, long long stride, long long dilation) {
  return (size + pad - dilation * (kernel - 1) - 1) / stride + 1;
}

}  // namespace convlab
