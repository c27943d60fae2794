// Convolution for a few small filters, C, K, R and S known to the compiler (conv2d_small_filter_plan.h lists them):
// stride 1, no dilation, one group, any padding.
//
//   forward  y[n,k,p,q]  = bias[k] + sum over c, r, s of x[n, c, p + r - pad, q + s - pad] w[k,c,r,s]
//   dgrad    dx[n,c,h,w] = sum over k, r, s of dy[n, k, h + pad - r, w + pad - s] w[k,c,r,s]
//   wgrad    dw[k,c,r,s] = sum over n, p, q of dy[n,k,p,q] x[n, c, p + r - pad, q + s - pad]
//
// What it does    forward: as the course lays C1 out, four rows of all six maps are made together. Here that is one
//                 thread's, in two columns: 48 sums in registers, and beside them the 8 x 6 inputs that they are made
//                 of, each loaded once and used in up to 150 multiply-adds. Weights come from shared memory, four in a
//                 load that serves the whole warp. All loops but those over images and channels are unrolled; of a
//                 filter of seven rows the code is one row's, and the window moves down in registers, while its next
//                 row is loaded. dgrad is the same with the filter flipped. wgrad: a thread walks down columns of images
//                 with an R-row window of x in registers, which slides by a row a step, and beside it the sums of all
//                 taps of a channel for several maps. A block adds up its threads' sums and leaves one partial result,
//                 and the partial results are added in order: no atomics, the same bits every time. The bias gradient
//                 comes out of the same dy.
// channels_last   as it lies in forward, and in wgrad where maps come in fours: the maps of a position are for threads
//                 beside each other, which store or load them as vectors, whole sectors together, and share a load of
//                 x. dgrad sums over many channels, which lie far apart for neighbouring pixels: it takes NCHW.
// 16 bits         in forward and dgrad, of NCHW: converted where they are loaded and stored, and summed in float32.
// Against register_tiled  no tables, no tile that six maps cannot fill, and an input is not loaded again for every tap.
// What bounds it  C1: memory, with three of four instructions multiply-adds. C3: issue slots, six of seven instructions
//                 being multiply-adds. wgrad: three of five to three of four, and its registers leave few warps to hide
//                 loads behind.
// In a block      activation and windows of 2 x 2 are made of the sums in registers: a thread has whole windows.
// What is next    the gradient of a block's windows in the loaders of dgrad and wgrad; dgrad and blocks of tensors as they
//                 lie.
// What is counted  by the simulator; tools/kernel_notes.py writes it here, and says how to read it
//                              x      w     dy   workspace   sectors   at least   conflicts   shared
//   LeNet C3    forward     4.59   7.00                         13.1       4.43        1.00     1.01
//   LeNet C3    dgrad              8.00   6.00                  6.61       2.54        1.00     1.20
//   LeNet C3    wgrad       8.57          6.00        0.11      13.2       3.99        1.00     0.01
#include "kernels/conv2d_small_filter_plan.h"

#include <type_traits>

#include "device/reduce.h"
#include "device/vector.h"
#include "kernels/add_slices.h"
#include "kernels/block_ending.h"
#include "kernels/launchers.h"

namespace convlab {
namespace {

// A pass as seen by its images: `in` [N, kIn, h, w] becomes `out` [N, maps_in_all, out_h, out_w]. The first row of
// outputs sees the input from row -pad_h on.
struct Planes {
  int N, h, w, out_h, out_w, pad_h, pad_w;
};

// A thread's neighbours in one row of width `width`, of which the first `left` exist. Of an even width they are one
// access: two of 4 bytes would each write half of every sector.
template <class T, class V>
__device__ __forceinline__ void store_columns(T* y, const V (&sums)[2], int left, int width) {
  if (width % 2 == 0) return store_vector(y, Vector<T, 2>{{T(sums[0]), T(sums[1])}});
  y[0] = T(sums[0]);
  if (left > 1) y[1] = T(sums[1]);
}

// What one thread makes of an image, rows x columns neighbouring outputs of `maps` maps, and what that takes. Of tensors
// that lie channels_last, the threads beside it make the other maps.
template <int kAllMaps, int R, int S, bool kLast> struct Piece {
  static constexpr int maps = small_filter_maps(kAllMaps, kLast), rows = small_filter_rows(maps, R, kLast),
                       columns = kSmallFilterColumns;
  static_assert(kAllMaps % maps == 0, "every block has all of its maps");
  static constexpr int window_rows = rows + R - 1, window_columns = columns + S - 1;
  static constexpr int line = (S * maps + 3) / 4 * 4;  // the weights of one row of taps, in whole 16-byte loads
  static constexpr int side_by_side = kLast ? kAllMaps / maps : 1;
  using Sums = float[rows][maps][columns];
  using Weights = float[R][side_by_side][line];  // of one input channel: [r][thread][s * maps + map]
};

// Row i of a thread's window, which begins at row `top` and column `left` of a plane: zeros outside it. in: its first row.
// pixel: elements from one of its columns to the next.
template <int pixel, int kWidth, class T>
__device__ __forceinline__ void load_window_row(float (&row)[kWidth], const T* __restrict__ in, int offset, int i,
                                                int top, int left, int height, int width) {
#pragma unroll
  for (int j = 0; j < kWidth; j++) {
    const bool inside = unsigned(top + i) < unsigned(height) && unsigned(left + j) < unsigned(width);
    row[j] = load_if(inside, in + (offset + i * width * pixel) + j * pixel);
  }
}

// Adds to sums what row r of the filter, whose weights are in shared memory, makes of rows first, first + 1... of x.
template <class Piece, int S, int kRows>
__device__ __forceinline__ void add_row(typename Piece::Sums& sums, const float (&x)[kRows][Piece::window_columns],
                                        int first, const float (&weights)[Piece::line]) {
  float w[Piece::line];
#pragma unroll
  for (int j = 0; j < Piece::line; j += 4) {
    const float4 four = load4(&weights[j]);
    w[j] = four.x, w[j + 1] = four.y, w[j + 2] = four.z, w[j + 3] = four.w;
  }
#pragma unroll
  for (int s = 0; s < S; s++)
#pragma unroll
    for (int i = 0; i < Piece::rows; i++)
#pragma unroll
      for (int j = 0; j < Piece::columns; j++)
#pragma unroll
        for (int m = 0; m < Piece::maps; m++) sums[i][m][j] += x[first + i][j + s] * w[s * Piece::maps + m];
}

// Adds to sums what one input channel gives: the window that begins at row `top` and column `left` of its plane, which
// is in[offset], times its weights, which are in shared memory.
template <class Piece, int pixel, int R, int S, class T>
__device__ __forceinline__ void add_channel(typename Piece::Sums& sums, const T* __restrict__ in, int offset, int top,
                                            int left, int height, int width, const typename Piece::Weights& weights,
                                            int thread) {
  constexpr bool kSlides = small_filter_slides(Piece::maps, R);
  constexpr int kRows = kSlides ? Piece::rows : Piece::window_rows;
  float x[kRows][Piece::window_columns];
#pragma unroll
  for (int i = 0; i < kRows; i++) load_window_row<pixel>(x[i], in, offset, i, top, left, height, width);
  if constexpr (!kSlides) {
#pragma unroll
    for (int r = 0; r < R; r++) add_row<Piece, S>(sums, x, r, weights[r][thread]);
  } else {
#pragma unroll 1
    for (int r = 0; r < R; r++) {
      float next[Piece::window_columns];  // asked for while this row is multiplied
      load_window_row<pixel>(next, in, offset, kRows + r, r < R - 1 ? top : height, left, height, width);
      add_row<Piece, S>(sums, x, 0, weights[r][thread]);
#pragma unroll
      for (int j = 0; j < Piece::window_columns; j++) {
#pragma unroll
        for (int i = 0; i < kRows - 1; i++) x[i][j] = x[i + 1][j];
        x[kRows - 1][j] = next[j];
      }
    }
  }
}

// A row of this thread's sums, to positions of all `kAllMaps` maps: as vectors of four maps, or of its neighbours' maps too
// where it has all.
template <class Piece, int kAllMaps>
__device__ __forceinline__ void store_last(float* y, const float (&sums)[Piece::maps][Piece::columns], int left,
                                           int width) {
  constexpr int kMaps = Piece::maps, kRun = kMaps * Piece::columns, kVector = kRun % 4 == 0 ? 4 : 2;
  if constexpr (kMaps % kMapsOfAVector == 0) {
#pragma unroll
    for (int j = 0; j < Piece::columns; j++)
      if (j < left) store4(y + j * kAllMaps, make_float4(sums[0][j], sums[1][j], sums[2][j], sums[3][j]));
  } else {
    static_assert(kMaps == kAllMaps, "a position's maps are one run");
#pragma unroll
    for (int i = 0; i < kRun; i += kVector) {
      Vector<float, kVector> v;
#pragma unroll
      for (int j = 0; j < kVector; j++) v.at[j] = sums[(i + j) % kMaps][(i + j) / kMaps];
      if (width % 2 == 0) {
        store_vector(y + i, v);
        continue;
      }
#pragma unroll
      for (int j = 0; j < kVector; j++)
        if ((i + j) / kMaps < left) y[i + j] = v.at[j];
    }
  }
}

// What a block makes of this thread's sums, which begin at row p and column q of map `first_map`, counted over all images.
// Of a map, the block's windows cover rows x columns.
template <class Piece>
__device__ __forceinline__ void store_block(const BlockOutput<float>& to, const typename Piece::Sums& sums,
                                            long long first_map, int p, int q, int rows, int columns) {
  constexpr int kMaps = Piece::maps, kColumns = Piece::columns;
  const int plane = to.P * to.Q;
  long long at = first_map * plane + p / to.ending.R * to.Q + q / to.ending.S;
  if (!to.pools()) {
#pragma unroll
    for (int i = 0; i < Piece::rows; i++, at += to.Q) {
      if (p + i >= rows) return;
#pragma unroll
      for (int m = 0; m < kMaps; m++) {
        float values[kColumns];
        unsigned char bytes[kColumns];
#pragma unroll
        for (int j = 0; j < kColumns; j++) {
          Winner<float> one;
          one.take(to.ending, sums[i][m][j], 0);
          values[j] = one.value, bytes[j] = (unsigned char)one.byte;
        }
        store_columns(to.y + (at + m * plane), values, columns - q, columns);
        if (to.winners) store_columns(to.winners + (at + m * plane), bytes, columns - q, columns);
      }
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < Piece::rows; i += 2, at += to.Q) {
    if (p + i >= rows) return;
#pragma unroll
    for (int m = 0; m < kMaps; m++) {
      Winner<float> winner;
#pragma unroll
      for (int tap = 0; tap < 4; tap++) winner.take(to.ending, sums[i + tap / 2][m][tap % 2], tap);
      to.store(at + m * plane, winner);
    }
  }
}

// kIn: channels summed over. weight(in, map, r, s) are the filters, bias may be null. Output: float*, or a BlockOutput:
// then g's outputs are those that its windows cover.
// kLast: `in` and the output lie channels_last, and all maps are one block's.
// grid (pieces of an image, images, maps). A block has its pieces of as many images as it has threads for, and goes on
// to the images that the grid has left over.
template <bool kLast, int kIn, int kAllMaps, int R, int S, class T, class Weight, class Output>
__device__ __forceinline__ void correlate(const Planes& g, const T* __restrict__ in, const Weight& weight,
                                          const T* __restrict__ bias, Output out) {
  constexpr bool kBlock = !std::is_pointer_v<Output>;
  using P = Piece<kAllMaps, R, S, kLast>;
  constexpr int kMaps = P::maps, kRows = P::rows, kColumns = P::columns, kLine = P::line;
  constexpr int kBeside = P::side_by_side, kPixel = kLast ? kIn : 1, kOutPixel = kLast ? kAllMaps : 1;
  SHARED(float, weights, [kIn][R][kBeside][kLine]);
  SHARED(float, biases, [kBeside * kMaps]);
  const int map0 = blockIdx.z * kMaps;
  for (int i = threadIdx.x; i < kIn * R * kBeside * kLine; i += blockDim.x) {
    const int j = i % kLine, b = i / kLine % kBeside, r = i / (kLine * kBeside) % R, c = i / (kLine * kBeside * R);
    weights[c][r][b][j] = j < S * kMaps ? weight(c, map0 + b * kMaps + j % kMaps, r, j / kMaps) : 0.0f;
  }
  for (int i = threadIdx.x; i < kBeside * kMaps; i += blockDim.x) biases[i] = bias ? float(bias[map0 + i]) : 0.0f;
  __syncthreads();

  const int across = (g.out_w + kColumns - 1) / kColumns, pieces = (g.out_h + kRows - 1) / kRows * across;
  const int pieces_here = (pieces + gridDim.x - 1) / gridDim.x;
  const int mine = threadIdx.x / kBeside, beside = threadIdx.x % kBeside;
  const int images_here = blockDim.x / kBeside / pieces_here, image = mine / pieces_here;
  const int piece = blockIdx.x * pieces_here + mine % pieces_here;
  if (image >= images_here || piece >= pieces) return;
  const int p = piece / across * kRows, q = piece % across * kColumns;
  const int top = p - g.pad_h, left = q - g.pad_w;
  const int in_plane = g.h * g.w, out_plane = g.out_h * g.out_w;
  const int first = blockIdx.y * images_here + image, images = gridDim.y * images_here;
  in += (long long)first * (kIn * in_plane) + (top * g.w + left) * kPixel;
  if constexpr (!kBlock)
    out +=
        (long long)first * (kAllMaps * out_plane) + (map0 * out_plane + (p * g.out_w + q) * kOutPixel + beside * kMaps);

#pragma unroll 1
  for (int n = first; n < g.N; n += images, in += (long long)images * (kIn * in_plane)) {
    load_again();  // the weights: they are too many to stay in registers
    typename P::Sums sums;
#pragma unroll
    for (int i = 0; i < kRows; i++)
#pragma unroll
      for (int j = 0; j < kColumns; j++)
#pragma unroll
        for (int m = 0; m < kMaps; m++) sums[i][m][j] = biases[beside * kMaps + m];

#pragma unroll 1
    for (int c = 0; c < kIn; c++)
      add_channel<P, kPixel, R, S>(sums, in, kLast ? c : c * in_plane, top, left, g.h, g.w, weights[c], beside);

    if constexpr (kBlock) {
      store_block<P>(out, sums, (long long)n * kAllMaps + map0, p, q, g.out_h, g.out_w);
    } else {
#pragma unroll
      for (int i = 0; i < kRows; i++) {
        if (p + i >= g.out_h) break;
        auto y = out + i * g.out_w * kOutPixel;
        if constexpr (kLast) {
          store_last<P, kAllMaps>(y, sums[i], g.out_w - q, g.out_w);
        } else {
#pragma unroll
          for (int m = 0; m < kMaps; m++, y += out_plane) store_columns(y, sums[i][m], g.out_w - q, g.out_w);
        }
      }
      out += (long long)images * (kAllMaps * out_plane);
    }
  }
}

// Element k, c, r, s of filters [K, C, R, S] as they lie
template <int C, int R, int S> __device__ __forceinline__ int filter_at(bool last, int k, int c, int r, int s) {
  return last ? ((k * R + r) * S + s) * C + c : ((k * C + c) * R + r) * S + s;
}

// x [N, C, H, W], w [K, C, R, S], bias [K] or null -> y [N, K, P, Q]. kLast: x and y lie channels_last, w_last: w does.
template <int C, int K, int R, int S, bool kLast, class T>
__global__ void __launch_bounds__(kSmallFilterThreads, kSmallFilterResident)
    small_filter_forward_kernel(Conv2d g, bool w_last, const T* __restrict__ x, const T* __restrict__ w,
                                const T* __restrict__ bias, T* __restrict__ y) {
  const auto weight = [&](int c, int k, int r, int s) { return float(w[filter_at<C, R, S>(w_last, k, c, r, s)]); };
  correlate<kLast, C, K, R, S>({g.N, g.H, g.W, g.P, g.Q, g.pad_h, g.pad_w}, x, weight, bias, y);
}

// The same, and what a block makes of it: y and winners [N, K, P, Q] of windows
template <int C, int K, int R, int S>
__global__ void __launch_bounds__(kSmallFilterThreads, kSmallFilterResident)
    small_filter_block_kernel(Conv2d g, const float* __restrict__ x, const float* __restrict__ w,
                              const float* __restrict__ bias, BlockOutput<float> to) {
  const auto weight = [&](int c, int k, int r, int s) { return w[((k * C + c) * R + r) * S + s]; };
  correlate<false, C, K, R, S>({g.N, g.H, g.W, to.P * to.ending.R, to.Q * to.ending.S, g.pad_h, g.pad_w}, x, weight,
                               bias, to);
}

// dy [N, K, P, Q], w [K, C, R, S] -> dx [N, C, H, W]. w_last: w lies channels_last
template <int C, int K, int R, int S, class T>
__global__ void __launch_bounds__(kSmallFilterThreads, kSmallFilterResident)
    small_filter_dgrad_kernel(Conv2d g, bool w_last, const T* __restrict__ dy, const T* __restrict__ w,
                              T* __restrict__ dx) {
  const auto flipped = [&](int k, int c, int r, int s) {
    return float(w[filter_at<C, R, S>(w_last, k, c, R - 1 - r, S - 1 - s)]);
  };
  correlate<false, K, C, R, S>({g.N, g.P, g.Q, g.H, g.W, R - 1 - g.pad_h, S - 1 - g.pad_w}, dy, flipped,
                               static_cast<const T*>(nullptr), dx);
}

// dy [N, K, P, Q], x [N, C, H, W] -> dw [slices, K, C, R, S], db [slices, K] or null.  grid (slices, channels and maps)
// A slice is `slice` of the images' strips of columns. kLast: dy and x lie channels_last, and threads beside each other
// have the maps of a strip; dw_last: dw does.
template <int C, int K, int R, int S, bool kLast>
__global__ void __launch_bounds__(kSmallFilterThreads, kSmallFilterWgradResident)
    small_filter_wgrad_kernel(Conv2d g, int slice, bool dw_last, const float* __restrict__ dy,
                              const float* __restrict__ x, float* __restrict__ dw, float* __restrict__ db) {
  constexpr int kMaps = small_filter_wgrad_maps(K, R * S), kTaps = R * S, kSums = kMaps * kTaps;
  constexpr int kColumns = small_filter_wgrad_columns(K, R * S), kWindowColumns = kColumns + S - 1;
  constexpr int kBeside = kLast ? K / kMaps : 1, kPixel = kLast ? C : 1, kOutPixel = kLast ? K : 1;
  const int c = blockIdx.y % C, k0 = (kLast ? threadIdx.x % kBeside : blockIdx.y / C) * kMaps;
  const int x_plane = g.H * g.W, y_plane = g.P * g.Q, across = (g.Q + kColumns - 1) / kColumns;

  float sums[kSums + kMaps] = {};  // of each map's taps, then of its dy
  const long long begin = (long long)blockIdx.x * slice, end = min(begin + slice, (long long)g.N * across);
#pragma unroll 1
  for (long long i = begin + threadIdx.x / kBeside; i < end; i += kSmallFilterThreads / kBeside) {
    const int n = int(i) / across, q = int(i) % across * kColumns, left = q - g.pad_w;
    const float* xc = x + (long long)n * (C * x_plane) + (kLast ? c : c * x_plane) + (left - g.pad_h * g.W) * kPixel;
    const float* dyk = dy + (long long)n * (K * y_plane) + (kLast ? k0 : k0 * y_plane) + q * kOutPixel;

    float window[R][kWindowColumns];  // row h of x is row (h + pad) % R
    const auto load_row = [&](float (&row)[kWindowColumns], int h) {
#pragma unroll
      for (int j = 0; j < kWindowColumns; j++)
        row[j] = load_if(unsigned(h - g.pad_h) < unsigned(g.H) && unsigned(left + j) < unsigned(g.W),
                         xc + h * g.W * kPixel + j * kPixel);
    };
#pragma unroll
    for (int r = 0; r < R - 1; r++) load_row(window[r], r);

#pragma unroll 1
    for (int p0 = 0; p0 < g.P; p0 += R) {
#pragma unroll
      for (int u = 0; u < R; u++) {
        const int p = p0 + u;
        load_row(window[(u + R - 1) % R], p + R - 1);
        float d[kMaps][kColumns];
        if constexpr (kLast) {
#pragma unroll
          for (int j = 0; j < kColumns; j++)
#pragma unroll
            for (int m = 0; m < kMaps; m += kMapsOfAVector) {
              const auto four =
                  load_vector_if<kMapsOfAVector>(p < g.P && q + j < g.Q, dyk + (p * g.Q + j) * kOutPixel + m);
#pragma unroll
              for (int i = 0; i < kMapsOfAVector; i++) d[m + i][j] = four.at[i];
            }
        } else {
#pragma unroll
          for (int m = 0; m < kMaps; m++)
#pragma unroll
            for (int j = 0; j < kColumns; j++)
              d[m][j] = load_if(p < g.P && q + j < g.Q, dyk + (m * y_plane + p * g.Q) + j);
        }
#pragma unroll
        for (int m = 0; m < kMaps; m++)
#pragma unroll
          for (int j = 0; j < kColumns; j++) {
            sums[kSums + m] += d[m][j];
#pragma unroll
            for (int r = 0; r < R; r++)
#pragma unroll
              for (int s = 0; s < S; s++) sums[m * kTaps + r * S + s] += d[m][j] * window[(u + r) % R][j + s];
          }
      }
    }
  }

  dw += (long long)blockIdx.x * (K * C * kTaps);
  block_sums<kSmallFilterThreads, kBeside>(sums, [&](int at, float sum) {
    const int i = at / kBeside, first = kLast ? at % kBeside * kMaps : k0, tap = i % kTaps;
    if (i < kSums) dw[filter_at<C, R, S>(dw_last, first + i / kTaps, c, tap / S, tap % S)] = sum;
    else if (db && c == 0) db[(long long)blockIdx.x * K + first + i - kSums] = sum;
  });
}

// Calls f.template operator()<C, K, R, S>() with the filter of the plan.
template <int i = 0, class F> void with_filter(const Plan& plan, const F& f) {
  constexpr SmallFilter s = kSmallFilters[i];
  if (plan.variant == i) return f.template operator()<s.C, s.K, s.R, s.S>();
  if constexpr (i + 1 < kSmallFilterCount) with_filter<i + 1>(plan, f);
}

// Calls f.template operator()<value>().
template <class F> void with_bool(bool value, const F& f) {
  if (value) f.template operator()<true>();
  else f.template operator()<false>();
}

// Calls f with the element type; float64 is refused.
template <class F> void with_type(DType dtype, const F& f) {
  dispatch(dtype, [&](auto tag) {
    if constexpr (!std::is_same_v<typename decltype(tag)::type, double>) f(tag);
  });
}

dim3 grid_of(const Plan& plan) { return dim3(plan.grid[0], plan.grid[1], plan.grid[2]); }

void forward(const Plan& plan, const Conv2d& g, DType dtype, const void* x, const void* w, const void* bias, void* y,
             void*, Stream stream) {
  with_filter(plan, [&]<int C, int K, int R, int S>() {
    with_type(dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      const auto run = [&]<bool kLast>() {
        launch(small_filter_forward_kernel<C, K, R, S, kLast, T>, grid_of(plan), dim3(plan.threads), 0, stream, g,
               plan.layouts.second, static_cast<const T*>(x), static_cast<const T*>(w), static_cast<const T*>(bias),
               static_cast<T*>(y));
      };
      if constexpr (std::is_same_v<T, float>) with_bool(plan.layouts.output, run);
      else run.template operator()<false>();
    });
  });
}

void block(const Plan& plan, const Conv2d& g, const Ending& e, const Pool2d& pool, DType, const void* x, const void* w,
           const void* bias, void* y, void* winners, Stream stream) {
  with_filter(plan, [&]<int C, int K, int R, int S>() {
    launch(small_filter_block_kernel<C, K, R, S>, grid_of(plan), dim3(plan.threads), 0, stream, g,
           static_cast<const float*>(x), static_cast<const float*>(w), static_cast<const float*>(bias),
           block_output<float>(e, pool, y, winners));
  });
}

void dgrad(const Plan& plan, const Conv2d& g, DType dtype, const void* dy, const void* w, void* dx, void*,
           Stream stream) {
  with_filter(plan, [&]<int C, int K, int R, int S>() {
    with_type(dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      launch(small_filter_dgrad_kernel<C, K, R, S, T>, grid_of(plan), dim3(plan.threads), 0, stream, g,
             plan.layouts.second, static_cast<const T*>(dy), static_cast<const T*>(w), static_cast<T*>(dx));
    });
  });
}

// workspace [slices, K, C, R, S] and [slices, K] floats
void wgrad(const Plan& plan, const Conv2d& g, DType, const void* dy, const void* x, void* dw, void* db, void* workspace,
           Stream stream) {
  const long long filters = (long long)g.K * g.C * g.R * g.S;
  float* partial = slices_at(plan.slices, static_cast<float*>(workspace), static_cast<float*>(dw));
  float* after = static_cast<float*>(workspace) + plan.slices * filters;
  float* partial_db = db ? slices_at(plan.slices, after, static_cast<float*>(db)) : nullptr;
  with_filter(plan, [&]<int C, int K, int R, int S>() {
    const auto run = [&]<bool kLast>() {
      launch(small_filter_wgrad_kernel<C, K, R, S, kLast>, grid_of(plan), dim3(plan.threads), 0, stream, g,
             int(plan.slice), plan.layouts.output, static_cast<const float*>(dy), static_cast<const float*>(x), partial,
             partial_db);
    };
    if constexpr (small_filter_wgrad_last(K, R * S)) with_bool(plan.layouts.first, run);
    else run.template operator()<false>();
  });
  add_slices(plan.slices, filters, partial, static_cast<float*>(dw), stream);
  if (db) add_slices(plan.slices, g.K, partial_db, static_cast<float*>(db), stream);
}

const ConvKernels conv2d_small_filter(kSmallFilter, forward, dgrad, wgrad, block);

}  // namespace
}  // namespace convlab
