// 8. Tensor cores.
//
// The product of 4, in matrices of 16 x 16 that a warp multiplies together: nvcuda::wmma. Operands are __half, sums
// float32.
// Grade it:  python -m convlab.check FILE --assignment 8
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <mma.h>

using namespace nvcuda;

#define M 16

__global__ void convolve(const __half* x, const __half* w, const __half* bias, __half* y, int C, int H, int W, int K,
                         int R, int S, int P, int Q) {
  __shared__ __half filters[M * M], columns[M * M];
  __shared__ float product[M * M];
  wmma::fragment<wmma::accumulator, M, M, M, float> sums;
  wmma::fill_fragment(sums, 0.0f);
  // TODO: for each 16 rows of the C R S: fill both tiles, wait, load fragments, multiply, wait. Then store the sums to
  // product, wait, add the bias, and write what lies inside y.
}

void conv2d_forward(const __half* x, const __half* w, const __half* bias, __half* y, int N, int C, int H, int W, int K,
                    int R, int S) {
  int P = H - R + 1, Q = W - S + 1;
  convolve<<<dim3((P * Q + M - 1) / M, (K + M - 1) / M, N), 32>>>(x, w, bias, y, C, H, W, K, R, S, P, Q);
}
