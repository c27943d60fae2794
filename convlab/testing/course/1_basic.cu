// 1. The basic convolution, a thread an output.
//
// y[n][k][p][q] = bias[k] + the sum over c, r, s of x[n][c][p + r][q + s] * w[k][c][r][s]
//
// x [N, C, H, W], w [K, C, R, S], bias [K] or null, y [N, K, P, Q], all in device memory, one row after the other.
// Grade it:  python -m convlab.check FILE --assignment 1
#include <cuda_runtime.h>

#define TILE 16

__global__ void convolve(const float* x, const float* w, const float* bias, float* y, int C, int H, int W, int K, int R,
                         int S, int P, int Q) {
  // TODO: which output (n, k, p, q) is this thread's? Is there one? Sum over c, r and s, and write it.
}

void conv2d_forward(const float* x, const float* w, const float* bias, float* y, int N, int C, int H, int W, int K,
                    int R, int S) {
  int P = H - R + 1, Q = W - S + 1;
  dim3 block(TILE, TILE);
  dim3 grid((Q + TILE - 1) / TILE, (P + TILE - 1) / TILE, N * K);
  convolve<<<grid, block>>>(x, w, bias, y, C, H, W, K, R, S, P, Q);
}
