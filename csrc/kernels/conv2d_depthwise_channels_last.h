// Depthwise convolution of tensors that lie channels_last, where there is a filter a channel (m = 1) and channels come in
// vectors: the runs of conv2d_depthwise_plan.h with several channels.
//
// Lanes lie beside each other along the channels: a block has 32 of them, a thread 2 or 4 in one access, and of those
// the sums of 4 rows x 2 columns, so that 24 vectors are loaded for 8 sums of 3 x 3; at stride 2, where windows share
// less, of 2 x 2, whose windows and filters just fit the registers. A block has the filters of its
// channels, and goes through a slice of the runs; the rows and columns that its runs share are in L1.
#pragma once
#include "device/reduce.h"
#include "device/vector.h"
#include "kernels/conv2d_depthwise_walk.h"

namespace convlab {

constexpr int kVectorBlocksAtOnce = 3;  // a multiprocessor: leaves a thread 168 registers, and with 128 some spill

// A row of vectors, from column `left` on: zeros outside it
template <int kChannels, int kWidth, class T>
__device__ __forceinline__ void load_vectors(Vector<float, kChannels> (&row)[kWidth], const T* p, bool inside, int left,
                                             int width, int channels) {
#pragma unroll
  for (int j = 0; j < kWidth; j++)
    row[j] = load_vector_if<kChannels>(inside && unsigned(left + j) < unsigned(width), p + j * channels);
}

// in [images, in_h, in_w, C], w [C, R, S], bias [C] or null -> out [images, out_h, out_w, C].
// grid (ceil(C / 32), slices)
template <class T, int kFilter, int kStride, int kRows, int kColumns, int kChannels>
__global__ void __launch_bounds__(kDepthwiseThreads, kVectorBlocksAtOnce)
    depthwise_vectors_kernel(DepthwisePlanes g, int slice, const T* __restrict__ in, const T* __restrict__ w,
                             const T* __restrict__ bias, T* __restrict__ out) {
  using Channels = Vector<float, kChannels>;
  constexpr int kTaps = kFilter * kFilter, kAcross = kDepthwiseTogether / kChannels;
  SHARED(float, filters, [kTaps][kDepthwiseTogether + kChannels]);
  const int first = blockIdx.x * kDepthwiseTogether, C = g.out_maps;
  for (int i = threadIdx.x; i < kTaps * min(kDepthwiseTogether, C - first); i += kDepthwiseThreads)
    filters[g.flipped ? kTaps - 1 - i % kTaps : i % kTaps][i / kTaps] = float(w[(long long)first * kTaps + i]);
  __syncthreads();
  const int mine = threadIdx.x % kAcross * kChannels, map = first + mine;
  if (map >= C) return;
  Channels taps[kTaps], start{};
#pragma unroll
  for (int t = 0; t < kTaps; t++) taps[t] = load_vector<kChannels>(&filters[t][mine]);
#pragma unroll
  for (int v = 0; v < kChannels; v++)
    if (bias) start.at[v] = float(bias[map + v]);

  const long long in_row = (long long)g.in_w * C, out_row = (long long)g.out_w * C;
  const unsigned end = (blockIdx.y + 1) * unsigned(slice);
#pragma unroll 1
  for (unsigned i = blockIdx.y * unsigned(slice) + threadIdx.x / kAcross; i < end; i += kDepthwiseThreads / kAcross) {
    if (!exists<kRows, kColumns>(i, g.images, g.out_h, g.out_w)) break;
    const DepthwisePlace at = place_of<kRows, kColumns>(i, g.out_h, g.out_w);
    const int top = at.row * kStride - g.pad_h, left = at.column * kStride - g.pad_w;
    const T* const window = in + ((long long)at.image * g.in_h + top) * in_row + ((long long)left * C + map);

    Channels sums[kRows][kColumns];
#pragma unroll
    for (int a = 0; a < kRows; a++)
#pragma unroll
      for (int b = 0; b < kColumns; b++) sums[a][b] = start;
    over_window<Channels, kFilter, kStride, kRows, kColumns>(
        [&](auto& row, int h) {
          load_vectors(row, window + h * in_row, unsigned(top + h) < unsigned(g.in_h), left, g.in_w, C);
        },
        [&](int tap, int a, int b, const Channels& value) {
#pragma unroll
          for (int v = 0; v < kChannels; v++) sums[a][b].at[v] += value.at[v] * taps[tap].at[v];
        });

    T* const to = out + ((long long)at.image * g.out_h + at.row) * out_row + ((long long)at.column * C + map);
#pragma unroll
    for (int a = 0; a < kRows; a++)
#pragma unroll
      for (int b = 0; b < kColumns; b++) {
        if (at.row + a >= g.out_h || at.column + b >= g.out_w) continue;
        Vector<T, kChannels> result;
#pragma unroll
        for (int v = 0; v < kChannels; v++) result.at[v] = T(sums[a][b].at[v]);
        store_vector(to + a * out_row + b * C, result);
      }
  }
}

// dy [N, P, Q, C], x [N, H, W, C] -> partial [C, R S + 1, slices]: sums of each tap, then of dy.
// grid (slices, ceil(C / 32))
template <class T, int kFilter, int kStride, int kRows, int kColumns, int kChannels>
__global__ void __launch_bounds__(kDepthwiseThreads, kVectorBlocksAtOnce)
    depthwise_vectors_wgrad_kernel(Conv2d g, int slice, const T* __restrict__ dy, const T* __restrict__ x,
                                   float* __restrict__ partial) {
  using Channels = Vector<float, kChannels>;
  constexpr int kTaps = kFilter * kFilter, kAcross = kDepthwiseTogether / kChannels;
  const int first = blockIdx.y * kDepthwiseTogether, map = first + threadIdx.x % kAcross * kChannels, C = g.C;
  const long long x_row = (long long)g.W * C, y_row = (long long)g.Q * C;
  float sums[(kTaps + 1) * kChannels] = {};
  const unsigned end = map < C ? (blockIdx.x + 1) * unsigned(slice) : 0;
#pragma unroll 1
  for (unsigned i = blockIdx.x * unsigned(slice) + threadIdx.x / kAcross; i < end; i += kDepthwiseThreads / kAcross) {
    if (!exists<kRows, kColumns>(i, g.N, g.P, g.Q)) break;
    const DepthwisePlace at = place_of<kRows, kColumns>(i, g.P, g.Q);
    const int top = at.row * kStride - g.pad_h, left = at.column * kStride - g.pad_w;
    const T* const outputs = dy + ((long long)at.image * g.P + at.row) * y_row + ((long long)at.column * C + map);
    const T* const window = x + ((long long)at.image * g.H + top) * x_row + ((long long)left * C + map);

    Channels d[kRows][kColumns];
#pragma unroll
    for (int a = 0; a < kRows; a++) {
      load_vectors(d[a], outputs + a * y_row, at.row + a < g.P, at.column, g.Q, C);
#pragma unroll
      for (int b = 0; b < kColumns; b++)
#pragma unroll
        for (int v = 0; v < kChannels; v++) sums[kTaps * kChannels + v] += d[a][b].at[v];
    }
    over_window<Channels, kFilter, kStride, kRows, kColumns>(
        [&](auto& row, int h) {
          load_vectors(row, window + h * x_row, unsigned(top + h) < unsigned(g.H), left, g.W, C);
        },
        [&](int tap, int a, int b, const Channels& value) {
#pragma unroll
          for (int v = 0; v < kChannels; v++) sums[tap * kChannels + v] += d[a][b].at[v] * value.at[v];
        });
  }
  block_sums<kDepthwiseThreads, kAcross>(sums, [&](int i, float sum) {
    const int tap = i / kDepthwiseTogether, channel = first + i % kAcross * kChannels + i / kAcross % kChannels;
    if (channel < C) partial[((long long)channel * (kTaps + 1) + tap) * gridDim.x + blockIdx.x] = sum;
  });
}

}  // namespace convlab
