// Depthwise convolution: one input channel a group, and as many output channels as there are, m = K / C.
//
//   forward  y[n,k,p,q]  = bias[k] + sum over r, s of x[n, k / m, p*stride_h - pad_h + r*dilation_h, ...] w[k,r,s]
//   dgrad    dx[n,c,h,w] = sum over j < m, r, s of dy[n, c m + j, p, q] w[c m + j, r, s]
//                          where p*stride_h - pad_h + r*dilation_h = h, ...
//   wgrad    dw[k,r,s]   = sum over n, p, q of dy[n,k,p,q] x[n, k / m, p*stride_h - pad_h + r*dilation_h, ...]
//
// What it does    a thread makes 8 rows x 2 columns of a plane for a filter of 3 x 3 or 5 x 5 (conv2d_depthwise_plan.h
//                 lists them): sums and weights are in registers, each row of inputs is loaded once for all the sums
//                 that it is part of, columns side by side in one access where rows are of even width. Lanes lie beside
//                 each other in a row, so a warp's accesses are whole lines. A block has one channel, and of it as many
//                 images as it takes. dgrad at stride 1 is the same with the filter flipped. wgrad: a block has a
//                 channel and a slice of its runs, a thread the sums of all taps; they are added by shuffles, and the
//                 slices' by a warp an element: no atomics, the same bits every time. Other filters, strides and
//                 dilations: the same division of the work, with loops instead of registers.
// channels_last   as it lies: lanes lie along the channels, of which a block has 32, and a thread two or four in one
//                 access (conv2d_depthwise_channels_last.h); one where there is a multiplier, or no vector fits.
// Against direct  an input is loaded for 16 sums together, not for each of them (3 x 3: 1.9 loads an output, not 18),
//                 and indices are divided once for 16 outputs, in 32 bits.
// What bounds it  memory: x and y (dgrad: dy and dx, wgrad: x and dy) cross the bus once, 8 bytes for 9 multiply-adds
//                 in float32. 128 channels of 56 x 56 at batch 64: 206 MB, 48 us at 4.28 TB/s, in which an H200 has
//                 issue slots for 50 instructions an output; this takes 15 to 20. Two rows of ten are loaded again,
//                 from L1 or L2.
// What is next    the normalisation and activation that follow, and the pointwise convolution behind them, while y is
//                 in registers; vectors in dgrad at a stride, and for multipliers, in channels_last.
// What is counted  by the simulator; tools/kernel_notes.py writes it here, and says how to read it
//                              x      w     dy   workspace   sectors   at least   conflicts   shared
//   MobileNet   forward     2.12    896                         8.26       4.43
//   MobileNet   dgrad               896   2.12                  8.26       4.43
//   MobileNet   wgrad       2.12          1.00        0.01      9.95       5.20        1.00     0.01
#include "kernels/conv2d_depthwise_plan.h"

#include "device/reduce.h"
#include "device/vector.h"
#include "kernels/conv2d_depthwise_channels_last.h"
#include "kernels/conv2d_depthwise_walk.h"
#include "kernels/launchers.h"
#include "kernels/windows.h"

namespace convlab {
namespace {

constexpr int kThreads = kDepthwiseThreads, kBlocksAtOnce = kDepthwiseBlocksAtOnce;

DepthwisePlanes forward_planes(const Conv2d& g) {
  return {g.N, g.C, g.H, g.W, g.K, g.P, g.Q, g.pad_h, g.pad_w, 1, g.Kg(), false};
}
DepthwisePlanes dgrad_planes(const Conv2d& g) {  // at stride 1
  return {g.N,    g.K, g.P, g.Q, g.C, g.H, g.W, (g.R - 1) * g.dilation_h - g.pad_h, (g.S - 1) * g.dilation_w - g.pad_w,
          g.Kg(), 1,   true};
}

// The piece and the map of a thread, where lanes lie along kAcross maps
template <int kAcross = 1> __device__ __forceinline__ unsigned piece_of_thread() {
  return (blockIdx.z * gridDim.y + blockIdx.y) * (kThreads / kAcross) + threadIdx.x / kAcross;
}
template <int kAcross> __device__ __forceinline__ int map_of_thread(unsigned block) {
  return int(block) * kAcross + int(threadIdx.x % kAcross);
}

// kWidth neighbours from column `left` on of a row of `width`, zeros outside it. kPairs: p + left is even where a pair
// begins, and so is the width, so a pair is inside or outside.
template <bool kPairs, int kWidth, class T>
__device__ __forceinline__ void load_row(float (&row)[kWidth], const T* p, bool inside, int left, int width) {
  constexpr int kLead = kPairs ? (kWidth / 2 + 1) % 2 : kWidth;  // single ones before the pairs
#pragma unroll
  for (int j = 0; j < kWidth; j++) {
    const bool wanted = inside && unsigned(left + j) < unsigned(width);
    if (kPairs && j >= kLead && (j - kLead) % 2 == 0 && j + 1 < kWidth) {
      const Vector<float, 2> two = load_vector_if<2>(wanted, p + j);
      row[j] = two.at[0], row[j + 1] = two.at[1];
    } else if (j < kLead || (j + 1 == kWidth && kLead % 2)) {
      row[j] = load_if(wanted, p + j);
    }
  }
}

// over_window() of a plane, from row `top` and column `left` on, where `window` points
template <int kFilter, int kStride, int kRows, int kColumns, class T, class F>
__device__ __forceinline__ void over_plane(const T* window, int top, int left, int height, int width, const F& f) {
  over_window<float, kFilter, kStride, kRows, kColumns>(
      [&](auto& row, int h) {
        load_row<kColumns == 2>(row, window + h * width, unsigned(top + h) < unsigned(height), left, width);
      },
      f);
}

// in, w [K, R, S], bias [K] or null -> out.  grid (output maps, pieces)
template <class T, int kFilter, int kStride, int kRows, int kColumns>
__global__ void __launch_bounds__(kThreads, kBlocksAtOnce)
    depthwise_runs_kernel(DepthwisePlanes g, const T* __restrict__ in, const T* __restrict__ w,
                          const T* __restrict__ bias, T* __restrict__ out) {
  constexpr int kTaps = kFilter * kFilter;
  const unsigned i = piece_of_thread();
  if (!exists<kRows, kColumns>(i, g.images, g.out_h, g.out_w)) return;
  const DepthwisePlace at = place_of<kRows, kColumns>(i, g.out_h, g.out_w);
  const int map = blockIdx.x, top = at.row * kStride - g.pad_h, left = at.column * kStride - g.pad_w;
  const int source = (g.shared_by == 1 ? map : map / g.shared_by) * g.sources;

  float sums[kRows][kColumns];
  const float first = bias ? float(bias[map]) : 0.0f;
#pragma unroll
  for (int a = 0; a < kRows; a++)
#pragma unroll
    for (int b = 0; b < kColumns; b++) sums[a][b] = first;

  const T* plane = in + ((long long)at.image * g.in_maps + source) * (g.in_h * g.in_w) + (top * g.in_w + left);
  const T* filter = w + (long long)map * g.sources * kTaps;
#pragma unroll 1
  for (int j = 0; j < g.sources; j++, plane += g.in_h * g.in_w, filter += kTaps) {
    float taps[kTaps];
#pragma unroll
    for (int t = 0; t < kTaps; t++) taps[t] = float(filter[g.flipped ? kTaps - 1 - t : t]);
    over_plane<kFilter, kStride, kRows, kColumns>(
        plane, top, left, g.in_h, g.in_w, [&](int tap, int a, int b, float value) { sums[a][b] += value * taps[tap]; });
  }

  out += ((long long)at.image * g.out_maps + map) * (g.out_h * g.out_w) + (at.row * g.out_w + at.column);
#pragma unroll
  for (int a = 0; a < kRows; a++) {
    if (at.row + a >= g.out_h) break;
    if constexpr (kColumns == 2) store_vector(out + a * g.out_w, Vector<T, 2>{{T(sums[a][0]), T(sums[a][1])}});
    else out[a * g.out_w] = T(sums[a][0]);
  }
}

// The same for any filter, stride and dilation, with kAcross maps a block: 1, or several where tensors lie channels_last
template <class T, int kAcross>
__global__ void __launch_bounds__(kThreads, kBlocksAtOnce)
    depthwise_any_kernel(DepthwisePlanes g, int R, int S, int stride_h, int stride_w, int dilation_h, int dilation_w,
                         const T* __restrict__ in, const T* __restrict__ w, const T* __restrict__ bias,
                         T* __restrict__ out) {
  constexpr int kRows = kDepthwiseAnyRows;
  const unsigned i = piece_of_thread<kAcross>();
  const int map = map_of_thread<kAcross>(blockIdx.x);
  if (map >= g.out_maps || !exists<kRows, 1>(i, g.images, g.out_h, g.out_w)) return;
  const DepthwisePlace at = place_of<kRows, 1>(i, g.out_h, g.out_w);
  const int top = at.row * stride_h - g.pad_h, left = at.column * stride_w - g.pad_w;
  const int taps = R * S;

  float sums[kRows];
#pragma unroll
  for (int a = 0; a < kRows; a++) sums[a] = bias ? float(bias[map]) : 0.0f;
  const DepthwiseMaps<kAcross> lie{g.in_maps, g.in_h * g.in_w}, to{g.out_maps, g.out_h * g.out_w};
  const T* plane = in + lie.first(at.image, map / g.shared_by * g.sources);
  const T* filter = w + (long long)map * g.sources * taps;
#pragma unroll 1
  for (int j = 0; j < g.sources; j++, plane += lie.next_map(), filter += taps)
#pragma unroll 1
    for (int r = 0; r < R; r++)
#pragma unroll 1
      for (int s = 0; s < S; s++) {
        const int h = top + r * dilation_h, v = left + s * dilation_w, tap = r * S + s;
        const float weight = float(filter[g.flipped ? taps - 1 - tap : tap]);
#pragma unroll
        for (int a = 0; a < kRows; a++) {
          const int row = h + a * stride_h;
          const bool inside = unsigned(row) < unsigned(g.in_h) && unsigned(v) < unsigned(g.in_w);
          sums[a] += load_if(inside, plane + lie.at(inside ? row * g.in_w + v : 0)) * weight;
        }
      }

  out += to.first(at.image, map);
#pragma unroll
  for (int a = 0; a < kRows; a++)
    if (at.row + a < g.out_h) out[to.at((at.row + a) * g.out_w + at.column)] = T(sums[a]);
}

// dy [N, K, P, Q], w [K, R, S] -> dx [N, C, H, W], of any stride: an element gathers what its windows give it.
// grid (ceil(C / kAcross), pieces)
template <class T, int kAcross>
__global__ void __launch_bounds__(kThreads, kBlocksAtOnce)
    depthwise_gather_kernel(Conv2d g, const T* __restrict__ dy, const T* __restrict__ w, T* __restrict__ dx) {
  const unsigned i = piece_of_thread<kAcross>();
  const int c = map_of_thread<kAcross>(blockIdx.x), maps = g.Kg();
  if (c >= g.C || !exists<1, 1>(i, g.N, g.H, g.W)) return;
  const DepthwisePlace at = place_of<1, 1>(i, g.H, g.W);
  const DepthwiseMaps<kAcross> lie{g.K, g.P * g.Q}, to{g.C, g.H * g.W};
  const T* dyk = dy + lie.first(at.image, c * maps);
  const T* wk = w + (long long)c * maps * (g.R * g.S);
  float sum = 0;
#pragma unroll 1
  for (int j = 0; j < maps; j++, dyk += lie.next_map(), wk += g.R * g.S)
    over_windows(g, at.row, at.column,
                 [&](int tap, int output) { sum += float(dyk[lie.at(output)]) * float(wk[tap]); });
  dx[to.first(at.image, c) + to.at(at.row * g.W + at.column)] = T(sum);
}

// dy [N, K, P, Q], x [N, C, H, W] -> partial [K, R S + 1, slices]: sums of each tap, then of dy.  grid (slices, K)
template <class T, int kFilter, int kStride, int kRows, int kColumns>
__global__ void __launch_bounds__(kThreads, kBlocksAtOnce)
    depthwise_wgrad_kernel(Conv2d g, int slice, const T* __restrict__ dy, const T* __restrict__ x,
                           float* __restrict__ partial) {
  constexpr int kTaps = kFilter * kFilter;
  const int k = blockIdx.y, c = k / g.Kg();
  float sums[kTaps + 1] = {};
  const unsigned end = (blockIdx.x + 1) * unsigned(slice);
#pragma unroll 1
  for (unsigned i = blockIdx.x * unsigned(slice) + threadIdx.x; i < end; i += kThreads) {
    if (!exists<kRows, kColumns>(i, g.N, g.P, g.Q)) break;
    const DepthwisePlace at = place_of<kRows, kColumns>(i, g.P, g.Q);
    const int top = at.row * kStride - g.pad_h, left = at.column * kStride - g.pad_w;
    const T* dyk = dy + ((long long)at.image * g.K + k) * (g.P * g.Q) + (at.row * g.Q + at.column);
    const T* xc = x + ((long long)at.image * g.C + c) * (g.H * g.W) + (top * g.W + left);

    float d[kRows][kColumns];
#pragma unroll
    for (int a = 0; a < kRows; a++) {
      const bool inside = at.row + a < g.P;
      if constexpr (kColumns == 2) {
        const Vector<float, 2> two = load_vector_if<2>(inside, dyk + a * g.Q);
        d[a][0] = two.at[0], d[a][1] = two.at[1];
      } else {
        d[a][0] = load_if(inside, dyk + a * g.Q);
      }
#pragma unroll
      for (int b = 0; b < kColumns; b++) sums[kTaps] += d[a][b];
    }
    over_plane<kFilter, kStride, kRows, kColumns>(
        xc, top, left, g.H, g.W, [&](int tap, int a, int b, float value) { sums[tap] += d[a][b] * value; });
  }
  partial += (long long)k * (kTaps + 1) * gridDim.x + blockIdx.x;
  block_sums<kThreads>(sums, [&](int i, float sum) { partial[i * gridDim.x] = sum; });
}

// The same for any filter, stride and dilation, kAcross maps and kDepthwiseAnyTaps taps a block.
// grid (slices, ceil(K / kAcross), taps)
template <class T, int kAcross>
__global__ void __launch_bounds__(kThreads, kBlocksAtOnce)
    depthwise_wgrad_any_kernel(Conv2d g, int slice, const T* __restrict__ dy, const T* __restrict__ x,
                               float* __restrict__ partial) {
  const int k = map_of_thread<kAcross>(blockIdx.y), taps = g.R * g.S, tap0 = blockIdx.z * kDepthwiseAnyTaps;
  int down[kDepthwiseAnyTaps], right[kDepthwiseAnyTaps];  // where the taps lie from the first
#pragma unroll
  for (int t = 0; t < kDepthwiseAnyTaps; t++)
    down[t] = (tap0 + t) / g.S * g.dilation_h, right[t] = (tap0 + t) % g.S * g.dilation_w;
  float sums[kDepthwiseAnyTaps + 1] = {};
  const DepthwiseMaps<kAcross> of_x{g.C, g.H * g.W}, of_dy{g.K, g.P * g.Q};
  const unsigned end = k < g.K ? (blockIdx.x + 1) * unsigned(slice) : 0;
#pragma unroll 1
  for (unsigned i = blockIdx.x * unsigned(slice) + threadIdx.x / kAcross; i < end; i += kThreads / kAcross) {
    if (!exists<1, 1>(i, g.N, g.P, g.Q)) break;
    const DepthwisePlace at = place_of<1, 1>(i, g.P, g.Q);
    const int top = at.row * g.stride_h - g.pad_h, left = at.column * g.stride_w - g.pad_w;
    const T* xc = x + of_x.first(at.image, k / g.Kg());
    const float d = float(dy[of_dy.first(at.image, k) + of_dy.at(at.row * g.Q + at.column)]);
    sums[kDepthwiseAnyTaps] += d;
#pragma unroll
    for (int t = 0; t < kDepthwiseAnyTaps; t++) {
      const int h = top + down[t], v = left + right[t];
      const bool inside = tap0 + t < taps && unsigned(h) < unsigned(g.H) && unsigned(v) < unsigned(g.W);
      sums[t] += d * load_if(inside, xc + of_x.at(inside ? h * g.W + v : 0));
    }
  }
  block_sums<kThreads, kAcross>(sums, [&](int i, float sum) {
    const int map = int(blockIdx.y) * kAcross + i % kAcross, t = i / kAcross;
    if (map < g.K && (t < kDepthwiseAnyTaps ? tap0 + t < taps : tap0 == 0))
      partial[((long long)map * (taps + 1) + (t < kDepthwiseAnyTaps ? tap0 + t : taps)) * gridDim.x + blockIdx.x] = sum;
  });
}

// partial [K, taps + 1, slices] -> dw [K, taps], db [K] or null: a warp adds up an element.
// grid ceil(K (taps + 1) / 4)
template <class T>
__global__ void __launch_bounds__(kThreads)
    depthwise_add_kernel(int K, int taps, int slices, const float* __restrict__ partial, T* dw, T* db) {
  const long long i = (long long)blockIdx.x * (kThreads / kWarpLanes) + threadIdx.x / kWarpLanes;
  if (i >= (long long)K * (taps + 1)) return;
  float sum = 0;
  for (int slice = threadIdx.x % kWarpLanes; slice < slices; slice += kWarpLanes) sum += partial[i * slices + slice];
  sum = lanes_sum(sum);
  if (threadIdx.x % kWarpLanes) return;
  const long long k = i / (taps + 1), tap = i % (taps + 1);
  if (tap < taps) dw[k * taps + tap] = T(sum);
  else if (db) db[k] = T(sum);
}

// ---- launching ----

// Calls f with the element type; float64 is refused.
template <class F> void with_type(DType dtype, const F& f) {
  dispatch(dtype, [&](auto tag) {
    if constexpr (!std::is_same_v<typename decltype(tag)::type, double>) f(tag);
  });
}

// Calls f.template operator()<run>() with a run of the table; false where there is none.
template <int i = 0, class F> bool with_run(int variant, const F& f) {
  if constexpr (i < kDepthwiseRunCount) {
    if (variant != i) return with_run<i + 1>(variant, f);
    f.template operator()<kDepthwiseRuns[i]>();
    return true;
  }
  return false;
}

// Calls f.template operator()<maps of a block>(), where no run fits.
template <class F> void with_layout(bool channels_last, const F& f) {
  if (channels_last) f.template operator()<kDepthwiseTogether>();
  else f.template operator()<1>();
}

// The plan's run, or another that does without vectors where tensors do not begin on one: a view may begin anywhere.
template <class T>
int variant_for(Pass pass, const Plan& plan, const Conv2d& g, bool channels_last, const T* a, const T* b) {
  const int columns = plan.variant < kDepthwiseRunCount ? kDepthwiseRuns[plan.variant].columns : 1;
  const int channels = depthwise_run(pass, g, plan.variant).channels;
  const size_t bytes = sizeof(T) * size_t(channels > 1 ? channels : columns);
  const bool aligned = reinterpret_cast<size_t>(a) % bytes == 0 && reinterpret_cast<size_t>(b) % bytes == 0;
  return aligned ? plan.variant : depthwise_variant(pass, g, channels_last, false);
}

// forward, and dgrad at stride 1
template <class T>
void correlate(Pass pass, const Plan& plan, const Conv2d& g, const DepthwisePlanes& planes, const T* in, const T* w,
               const T* bias, T* out, Stream stream) {
  const bool channels_last = plan.layouts.first, forward = pass == Pass::forward;
  const int variant = variant_for(pass, plan, g, channels_last, in, out);
  const DepthwiseGrid grid = depthwise_grid(pass, g, channels_last, variant);
  const dim3 blocks(grid.x, grid.y, grid.z), threads(kThreads);
  if (with_run(variant, [&]<DepthwiseRun r>() {
        if constexpr (r.channels > 1)
          launch(depthwise_vectors_kernel<T, r.filter, r.stride, r.rows, r.columns, r.channels>, blocks, threads, 0,
                 stream, planes, int(grid.slice), in, w, bias, out);
        else
          launch(depthwise_runs_kernel<T, r.filter, r.stride, r.rows, r.columns>, blocks, threads, 0, stream, planes,
                 in, w, bias, out);
      }))
    return;
  with_layout(channels_last, [&]<int kAcross>() {
    launch(depthwise_any_kernel<T, kAcross>, blocks, threads, 0, stream, planes, g.R, g.S, forward ? g.stride_h : 1,
           forward ? g.stride_w : 1, g.dilation_h, g.dilation_w, in, w, bias, out);
  });
}

void forward(const Plan& plan, const Conv2d& g, DType dtype, const void* x, const void* w, const void* bias, void* y,
             void*, Stream stream) {
  with_type(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    correlate<T>(Pass::forward, plan, g, forward_planes(g), static_cast<const T*>(x), static_cast<const T*>(w),
                 static_cast<const T*>(bias), static_cast<T*>(y), stream);
  });
}

void dgrad(const Plan& plan, const Conv2d& g, DType dtype, const void* dy, const void* w, void* dx, void*,
           Stream stream) {
  with_type(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (g.stride_h == 1 && g.stride_w == 1)
      return correlate<T>(Pass::dgrad, plan, g, dgrad_planes(g), static_cast<const T*>(dy), static_cast<const T*>(w),
                          nullptr, static_cast<T*>(dx), stream);
    with_layout(plan.layouts.first, [&]<int kAcross>() {
      launch(depthwise_gather_kernel<T, kAcross>, dim3(plan.grid[0], plan.grid[1], plan.grid[2]), dim3(kThreads), 0,
             stream, g, static_cast<const T*>(dy), static_cast<const T*>(w), static_cast<T*>(dx));
    });
  });
}

// workspace [K, R S + 1, slices] floats
void wgrad(const Plan& plan, const Conv2d& g, DType dtype, const void* dy_, const void* x_, void* dw, void* db,
           void* workspace, Stream stream) {
  with_type(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T *dy = static_cast<const T*>(dy_), *x = static_cast<const T*>(x_);
    float* partial = static_cast<float*>(workspace);
    const bool channels_last = plan.layouts.first;
    const int variant = variant_for(Pass::wgrad, plan, g, channels_last, dy, x);
    const DepthwiseGrid grid = depthwise_grid(Pass::wgrad, g, channels_last, variant, plan.slices);
    const int slice = int(grid.slice);
    const dim3 blocks(grid.x, grid.y, grid.z), threads(kThreads);
    if (!with_run(variant, [&]<DepthwiseRun r>() {
          if constexpr (r.channels > 1)
            launch(depthwise_vectors_wgrad_kernel<T, r.filter, r.stride, r.rows, r.columns, r.channels>, blocks,
                   threads, 0, stream, g, slice, dy, x, partial);
          else
            launch(depthwise_wgrad_kernel<T, r.filter, r.stride, r.rows, r.columns>, blocks, threads, 0, stream, g,
                   slice, dy, x, partial);
        }))
      with_layout(channels_last, [&]<int kAcross>() {
        launch(depthwise_wgrad_any_kernel<T, kAcross>, blocks, threads, 0, stream, g, slice, dy, x, partial);
      });
    const int taps = g.R * g.S;
    launch(depthwise_add_kernel<T>, blocks_for((long long)g.K * (taps + 1), kThreads / kWarpLanes), dim3(kThreads), 0,
           stream, g.K, taps, plan.slices, partial, static_cast<T*>(dw), static_cast<T*>(db));
  });
}

const ConvKernels conv2d_depthwise(kDepthwise, forward, dgrad, wgrad);

}  // namespace
}  // namespace convlab
