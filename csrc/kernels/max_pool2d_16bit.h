// Max pooling forward of 16-bit types in windows of 3 x 3 with stride 2 and padding 1, the share of pool2d.h.
//
// A value and its tap are one integer: the value above, in an order that integers have (ordered16.h), below it 8 less the
// tap. So the largest is the value that wins, and of equal ones the first: one instruction and an addition where float32
// takes four. Rows and columns outside x are those at its edge once more: behind the window they lose against the first
// of equals, and before it their code says so.
#pragma once
#include "device/ordered16.h"
#include "kernels/pool2d.h"

namespace convlab {

constexpr int kMostTap = 8, kBefore = -1;  // the codes of tap 0, and of what lies before x

// The last NaN of the window whose first tap is row h and column w of `image`, or -1: NaN beats everything, the last
// one too.
template <class T>
__device__ __forceinline__ int last_nan(const T* image, const Pool2d& g, int channels, int h, int w) {
  int last = -1;
#pragma unroll 1
  for (int tap = 0; tap <= kMostTap; tap++) {
    const int row = h + tap / 3, column = w + tap % 3;
    if (unsigned(row) >= unsigned(g.H) || unsigned(column) >= unsigned(g.W)) continue;
    const float value = float(image[((long long)row * g.W + column) * channels]);
    if (value != value) last = tap;
  }
  return last;
}

// x -> y, and the taps that won unless `taps` is null
template <class S, class T>
__device__ __forceinline__ void max_pool_16bit(const PoolWalk& walk, const T* __restrict__ x, T* __restrict__ y,
                                               unsigned char* __restrict__ taps) {
  static_assert(S::window == 3 && sizeof(T) == 2);
  constexpr int kWidth = 2 * S::columns + 1, kRows = 2 * S::rows + 1;
  const PoolPiece at = walk.piece<S>();
  if (at.image >= walk.images) return;
  const Pool2d& g = walk.g;
  const int C = S::across ? 1 : walk.channels, line = g.W * C;
  const int h0 = 2 * at.row - 1, w0 = 2 * at.column - 1;
  const T* const image = x + at.image * g.H * line + at.channel;
  const T* from = image + (long long)max(h0, 0) * line;

  const int first_column = w0 < 0 ? kBefore : 2, first_row = h0 < 0 ? 3 * kBefore : 6;
  int keys[S::rows][S::together];
#pragma unroll
  for (int r = 0; r < kRows; r++) {
    int values[kWidth][S::channels];
    const auto unpack = [&](unsigned pair, int& low, int& high) {
      low = int(pair << 16), high = int(pair & 0xffff0000u);
    };
    if constexpr (S::across) {
      const auto wide = load_vector<S::columns>(reinterpret_cast<const unsigned*>(from + (w0 + 1)));
      unsigned last = 0;
#pragma unroll
      for (int j = 0; j < S::columns; j++) {
        last = ordered<T>(wide.at[j]);
        unpack(last, values[2 * j + 1][0], values[2 * j + 2][0]);
      }
      values[0][0] = __shfl_up_sync(0xffffffffu, values[kWidth - 1][0], 1);  // the neighbour's last column
      if (threadIdx.x % kWarpLanes == 0 && w0 >= 0) {
        const Vector<T, 2> one{{T(0.0f), from[w0]}};
        unsigned pair;
        memcpy(&pair, &one, sizeof pair);
        values[0][0] = int(ordered<T>(pair) & 0xffff0000u);
      }
      if (w0 < 0) values[0][0] = values[1][0];
    } else {
#pragma unroll
      for (int j = 0; j < kWidth; j++) {
        const auto wide =
            load_vector<S::channels / 2>(reinterpret_cast<const unsigned*>(from + moved_inside(w0 + j, g.W) * C));
#pragma unroll
        for (int v = 0; v < S::channels; v += 2) unpack(ordered<T>(wide.at[v / 2]), values[j][v], values[j][v + 1]);
      }
    }
#pragma unroll
    for (int i = 0; i < S::together; i++) {
      const int column = i / S::channels, channel = i % S::channels;
      const int left = values[2 * column][channel] + (column == 0 ? first_column : 2);
      const int row = max(max(left, values[2 * column + 1][channel] + 1), values[2 * column + 2][channel]);
      const int o = r / 2;
      if (r % 2) keys[o][i] = max(keys[o][i], row + 3);
      if (r % 2 == 0 && o > 0) keys[o - 1][i] = max(keys[o - 1][i], row);
      if (r % 2 == 0 && o < S::rows) keys[o][i] = row + (o == 0 ? first_row : 6);
    }
    if (unsigned(h0 + r) < unsigned(g.H - 1)) from += line;
  }

  const long long first = ((at.image * g.P + at.row) * g.Q + at.column) * C + at.channel, next = (long long)g.Q * C;
  int most = 0;
#pragma unroll
  for (int o = 0; o < S::rows; o++) {
    if (at.row + o >= g.P) break;
    Vector<unsigned, S::together / 2> out;
    Vector<unsigned char, S::together> won;
#pragma unroll
    for (int i = 0; i < S::together; i++) {
      won.at[i] = (unsigned char)(kMostTap - keys[o][i]);
      most = max(most, keys[o][i]);
      if (i % 2) out.at[i / 2] = ordered_back((unsigned(keys[o][i - 1]) >> 16) | (unsigned(keys[o][i]) & 0xffff0000u));
    }
    store_vector(reinterpret_cast<unsigned*>(y + (first + o * next)), out);
    if (taps) store_vector(taps + (first + o * next), won);
  }
  if (most < kOrderedNaN << 16 || !taps) return;
#pragma unroll 1
  for (int i = 0; i < S::rows * S::together; i++) {
    const int o = i / S::together, k = i % S::together;
    if (at.row + o >= g.P) break;
    const int tap = last_nan(image + k % S::channels, g, C, h0 + 2 * o, w0 + k / S::channels * 2);
    if (tap >= 0) taps[first + o * next + k] = (unsigned char)tap;
  }
}

}  // namespace convlab
