// Tile and filter in dynamic shared memory, as large as the problem asks for.
#include <cuda_runtime.h>

static const int kTile = 8;

const char* refusal(int N, int C, int H, int W, int K, int R, int S, int stride_h, int stride_w, int pad_h, int pad_w, int dilation_h, int dilation_w, int groups) {
  return groups == 1 ? nullptr : "has no groups";
}

template <typename T>
__device__ T at_or_zero(const T* plane, int h, int v, int H, int W) {
  return h >= 0 && h < H && v >= 0 && v < W ? __ldg(plane + h * W + v) : T(0);
}

template <typename T, int tile_size>
__global__ void __launch_bounds__(tile_size * tile_size) conv_dynamic(const T* __restrict__ x, const T* __restrict__ w, const T* __restrict__ bias, T* __restrict__ y,
                                                                      int C, int H, int W, int K, int R, int S, int P, int Q, int2 stride, int2 pad, int2 dilation, int rows, int columns) {
  extern __shared__ __align__(16) unsigned char memory[];
  T* tile = reinterpret_cast<T*>(memory);
  T* filter = tile + rows * columns;
  const int thread = threadIdx.y * tile_size + threadIdx.x;
  const int h0 = blockIdx.y * tile_size * stride.x - pad.x, v0 = blockIdx.x * tile_size * stride.y - pad.y;
  const int k = blockIdx.z % K, n = blockIdx.z / K;
  T sum = bias ? bias[k] : T(0);
  for (int c = 0; c < C; c++) {
    for (int i = thread; i < rows * columns; i += tile_size * tile_size)
      tile[i] = at_or_zero(x + (n * C + c) * H * W, h0 + i / columns, v0 + i % columns, H, W);
    for (int i = thread; i < R * S; i += tile_size * tile_size)
      filter[i] = w[(k * C + c) * R * S + i];
    __syncthreads();
    for (int r = 0; r < R; r++)
      for (int s = 0; s < S; s++)
        sum += tile[(threadIdx.y * stride.x + r * dilation.x) * columns + threadIdx.x * stride.y + s * dilation.y] * filter[r * S + s];
    __syncthreads();
  }
  const int p = blockIdx.y * tile_size + threadIdx.y, q = blockIdx.x * tile_size + threadIdx.x;
  if (p < P && q < Q) y[((n * K + k) * P + p) * Q + q] = sum;
}

void conv2d_forward(const float* x, const float* w, const float* bias, float* y, int N, int C, int H, int W, int K, int R, int S,
                    int stride_h, int stride_w, int pad_h, int pad_w, int dilation_h, int dilation_w, int groups, cudaStream_t stream) {
  const int P = (H + 2 * pad_h - dilation_h * (R - 1) - 1) / stride_h + 1, Q = (W + 2 * pad_w - dilation_w * (S - 1) - 1) / stride_w + 1;
  const int rows = (kTile - 1) * stride_h + dilation_h * (R - 1) + 1, columns = (kTile - 1) * stride_w + dilation_w * (S - 1) + 1;
  const size_t bytes = (rows * columns + R * S) * sizeof(float);
  const dim3 grid((Q + kTile - 1) / kTile, (P + kTile - 1) / kTile, N * K);
  conv_dynamic<float, kTile><<<grid, dim3(kTile, kTile), bytes, stream>>>(x, w, bias, y, C, H, W, K, R, S, P, Q,
                                                                         make_int2(stride_h, stride_w), make_int2(pad_h, pad_w), make_int2(dilation_h, dilation_w), rows, columns);
}
