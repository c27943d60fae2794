// 3. Unroll the input, then multiply matrices.
//
// Column (p, q) of the unrolled image has the window of output (p, q): a matrix of C R S rows and P Q columns. The
// filters are a matrix of K rows and C R S columns; their product is an image of the output.
// Grade it:  python -m convlab.check FILE --assignment 3
#include <cuda_runtime.h>

#define TILE 16

__global__ void unroll(const float* image, float* columns, int C, int H, int W, int R, int S, int P, int Q) {
  // TODO: a thread an element of columns [C R S, P Q]
}

// d [m, n] = a [m, k] times b [k, n], and bias[row]
__global__ void multiply(const float* a, const float* b, const float* bias, float* d, int m, int n, int k) {
  // TODO: a thread an element of d; tiles of a and b in shared memory
}

void conv2d_forward(const float* x, const float* w, const float* bias, float* y, int N, int C, int H, int W, int K,
                    int R, int S) {
  int P = H - R + 1, Q = W - S + 1, size = C * R * S;
  float* columns;
  cudaMalloc((void**)&columns, size * P * Q * sizeof(float));
  for (int n = 0; n < N; n++) {
    unroll<<<(size * P * Q + 255) / 256, 256>>>(x + n * C * H * W, columns, C, H, W, R, S, P, Q);
    dim3 grid((P * Q + TILE - 1) / TILE, (K + TILE - 1) / TILE);
    multiply<<<grid, dim3(TILE, TILE)>>>(w, columns, bias, y + n * K * P * Q, K, P * Q, size);
  }
  cudaFree(columns);
}
