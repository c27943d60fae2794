// 2. Tiles of the input in shared memory, the filters in constant memory.
//
// A block makes TILE x TILE outputs of one plane. Their windows overlap: what they need of x is a tile with a halo, loaded
// once by all threads together. All threads read the same weight at the same time, which is what constant memory is
// for.
// Grade it:  python -m convlab.check FILE --assignment 2
#include <cuda_runtime.h>

#define TILE 16
#define MAX_R 5
#define MAX_WEIGHTS 4096

__constant__ float filters[MAX_WEIGHTS];

const char* refusal(int N, int C, int H, int W, int K, int R, int S) {
  return R > MAX_R || S > MAX_R || K * C * R * S > MAX_WEIGHTS ? "takes filters to 5 x 5, and 4096 weights" : nullptr;
}

__global__ void convolve(const float* x, const float* bias, float* y, int C, int H, int W, int K, int R, int S, int P,
                         int Q) {
  __shared__ float tile[TILE + MAX_R - 1][TILE + MAX_R - 1];
  // TODO: for each channel, load the tile with its halo, wait for it, add its products, and wait before the next one.
}

void conv2d_forward(const float* x, const float* w, const float* bias, float* y, int N, int C, int H, int W, int K,
                    int R, int S) {
  int P = H - R + 1, Q = W - S + 1;
  // TODO: copy w, which lies in device memory, to the filters
  dim3 block(TILE, TILE);
  dim3 grid((Q + TILE - 1) / TILE, (P + TILE - 1) / TILE, N * K);
  convolve<<<grid, block>>>(x, bias, y, C, H, W, K, R, S, P, Q);
}
