// Tensor cores: a warp makes 16 output channels of 16 positions, as products of matrices of 16 x 16.
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <mma.h>

using namespace nvcuda;

const int M = 16;

__global__ void conv_wmma(const half* x, const half* w, const half* bias, half* y, int C, int H, int W, int K, int R, int S, int P, int Q, int stride, int pad) {
  __shared__ half a[M * M], b[M * M];
  __shared__ float d[M * M];
  int lane = threadIdx.x, size = C * R * S, pixels = P * Q;
  int k0 = blockIdx.y * M, pixel0 = blockIdx.x * M, n = blockIdx.z;
  wmma::fragment<wmma::matrix_a, 16, 16, 16, half, wmma::row_major> fa;
  wmma::fragment<wmma::matrix_b, 16, 16, 16, half, wmma::row_major> fb;
  wmma::fragment<wmma::accumulator, 16, 16, 16, float> sums;
  wmma::fill_fragment(sums, 0.0f);
  for (int first = 0; first < size; first += M) {
    for (int i = lane; i < M * M; i += 32) {
      int row = i / M, column = i % M;
      a[i] = k0 + row < K && first + column < size ? w[(k0 + row) * size + first + column] : __float2half(0.0f);
      int e = first + row, pixel = pixel0 + column;
      int s = e % S, r = e / S % R, c = e / S / R, h = pixel / Q * stride - pad + r, v = pixel % Q * stride - pad + s;
      bool inside = e < size && pixel < pixels && h >= 0 && h < H && v >= 0 && v < W;
      b[i] = inside ? x[((n * C + c) * H + h) * W + v] : __float2half(0.0f);
    }
    __syncthreads();
    wmma::load_matrix_sync(fa, a, M);
    wmma::load_matrix_sync(fb, b, M);
    wmma::mma_sync(sums, fa, fb, sums);
    __syncthreads();
  }
  wmma::store_matrix_sync(d, sums, M, wmma::mem_row_major);
  __syncthreads();
  for (int i = lane; i < M * M; i += 32) {
    int k = k0 + i / M, pixel = pixel0 + i % M;
    if (k < K && pixel < pixels) y[(n * K + k) * pixels + pixel] = __float2half(d[i] + (bias ? __half2float(bias[k]) : 0));
  }
}

void conv2d_forward(const half* x, const half* w, const half* bias, half* y, int N, int C, int H, int W, int K, int R, int S, int stride, int pad) {
  int P = (H + 2 * pad - R) / stride + 1, Q = (W + 2 * pad - S) / stride + 1;
  conv_wmma<<<dim3((P * Q + M - 1) / M, (K + M - 1) / M, N), 32>>>(x, w, bias, y, C, H, W, K, R, S, P, Q, stride, pad);
}
