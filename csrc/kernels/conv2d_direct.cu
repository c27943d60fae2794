// Convolution, direct: the definition, one output element at a time. The first rung, and the one the others are checked
// against: no restriction on shape, stride, padding, dilation, groups or element type.
//
//   forward  y[n,k,p,q]  = bias[k] + sum over c, r, s of x[n, c, p*stride_h - pad_h + r*dilation_h, ...] w[k,c,r,s]
//   dgrad    dx[n,c,h,w] = sum over k, r, s of dy[n,k,p,q] w[k,c,r,s]  where p*stride_h - pad_h + r*dilation_h = h,
//   likewise q wgrad    dw[k,c,r,s] = sum over n, p, q of dy[n,k,p,q] x[n, c, p*stride_h - pad_h + r*dilation_h, ...]
//
// What it does    forward and dgrad: one thread an output element; consecutive threads make consecutive q (or w), so
//                 loads and stores are coalesced at stride 1. wgrad has few outputs and long sums (LeNet C1: 150 sums
//                 of 50,000 terms at batch 64), so a block shares one sum and adds up its threads' parts in a tree: no
//                 atomics, the same bits every time.
// What bounds it  load instructions: two loads feed one multiply-add, and neighbouring threads load the same x and w
//                 again and again. The caches hide the bytes, not the instructions.
// What is next    load a tile of x into shared memory once, and let every thread of the block read it from there.
// What is counted  by the simulator; tools/kernel_notes.py writes it here, and says how to read it
//                              x      w     dy   sectors   at least   conflicts   shared
//   LeNet C3    forward      204   3200             3.86       2.50
//   LeNet C3    dgrad              3200    150      6.63       2.13
//   LeNet C3    wgrad        204           150      4.34       3.24        1.00     0.64
//   ResNet-20   forward      264    235             4.01       2.42
//   ResNet-20   dgrad               235    264      4.01       2.42
//   ResNet-20   wgrad        264           264      3.67       3.67        1.00     7.98
#include "kernels/conv2d_direct_plan.h"

#include "device/reduce.h"
#include "kernels/block_ending.h"
#include "kernels/launchers.h"
#include "kernels/windows.h"

namespace convlab {
namespace {

constexpr int kThreads = kDirectThreads;
constexpr int kBlocksAtOnce =
    4;  // a multiprocessor: allows 64 registers; left to itself, ptxas aims at fewer on sm_80 and spills

// y[n,k,p,q], where nk = n K + k
template <class T>
__device__ __forceinline__ acc_t<T> output_at(const Conv2d& g, const T* __restrict__ x, const T* __restrict__ w,
                                              const T* __restrict__ bias, long long nk, int p, int q) {
  const int k = int(nk % g.K), n = int(nk / g.K);
  const int Cg = g.Cg(), c0 = k / g.Kg() * Cg;
  const int h0 = p * g.stride_h - g.pad_h, w0 = q * g.stride_w - g.pad_w;

  const T* xc = x + ((long long)n * g.C + c0) * g.H * g.W;  // 64-bit once an image, 32-bit inside a plane
  const T* wk = w + (long long)k * Cg * g.R * g.S;
  acc_t<T> sum = bias ? acc_t<T>(bias[k]) : acc_t<T>(0);
  for (int c = 0; c < Cg; c++, xc += g.H * g.W, wk += g.R * g.S)
    for (int r = 0; r < g.R; r++) {
      const int h = h0 + r * g.dilation_h;
      if (h < 0 || h >= g.H) continue;
      for (int s = 0; s < g.S; s++) {
        const int v = w0 + s * g.dilation_w;
        if (v >= 0 && v < g.W) sum += acc_t<T>(xc[h * g.W + v]) * acc_t<T>(wk[r * g.S + s]);
      }
    }
  return sum;
}

// x [N, C, H, W], w [K, C/groups, R, S], bias [K] or null -> y [N, K, P, Q].  grid ceil(NKPQ / 256)
template <class T>
__global__ void __launch_bounds__(kThreads) forward_kernel(Conv2d g, const T* __restrict__ x, const T* __restrict__ w,
                                                           const T* __restrict__ bias, T* __restrict__ y) {
  const long long i = (long long)blockIdx.x * kThreads + threadIdx.x;  // (n, k, p, q)
  if (i >= (long long)g.N * g.K * g.P * g.Q) return;
  const int q = int(i % g.Q), p = int(i / g.Q % g.P);
  y[i] = T(output_at(g, x, w, bias, i / g.Q / g.P, p, q));
}

// The same, and what a block makes of it: y and winners [N, K, P, Q] of windows.  grid ceil(NKPQ / windows a block)
// A block has whole windows, one after another, and a thread an element of one: of the first row of windows all that the
// block has of it, row of elements by row of elements, then of the next, so that neighbouring threads load as in forward.
template <class T>
__global__ void __launch_bounds__(kThreads) block_kernel(Conv2d g, const T* __restrict__ x, const T* __restrict__ w,
                                                         const T* __restrict__ bias, BlockOutput<T> to) {
  SHARED(acc_t<T>, elements, [kThreads]);  // [R][windows][S]
  const int R = to.ending.R, S = to.ending.S, windows = direct_windows(to.ending), thread = int(threadIdx.x);
  const long long first = (long long)blockIdx.x * windows, all = (long long)g.N * g.K * to.P * to.Q;
  const int count = int(min((long long)windows, all - first));
  if (thread < count * R * S) {
    const int before = int(first % to.Q), rest = to.Q - before;  // windows of the first row: another block's, and ours
    const int row = thread < rest * R * S ? 0 : 1 + (thread - rest * R * S) / (to.Q * R * S);
    const int begin = row ? rest + (row - 1) * to.Q : 0, wide = min(row ? to.Q : rest, count - begin) * S;
    const int r = (thread - begin * R * S) / wide, column = (thread - begin * R * S) % wide;
    const long long i = first + begin;  // (n, k, p, q)
    const int p = int(i / to.Q % to.P), q = int(i % to.Q);
    elements[(r * windows + begin) * S + column] =
        acc_t<T>(T(output_at(g, x, w, bias, i / to.Q / to.P, p * R + r, q * S + column)));
  }
  __syncthreads();
  if (thread >= count) return;
  Winner<T> winner;
  for (int i = 0; i < R; i++)
    for (int j = 0; j < S; j++) winner.take(to.ending, elements[(i * windows + thread) * S + j], i * S + j);
  to.store(first + thread, winner);
}

// dy [N, K, P, Q], w [K, C/groups, R, S] -> dx [N, C, H, W].  grid ceil(NCHW / 256)
template <class T>
__global__ void __launch_bounds__(kThreads, kBlocksAtOnce)
    dgrad_kernel(Conv2d g, const T* __restrict__ dy, const T* __restrict__ w, T* __restrict__ dx) {
  const long long i = (long long)blockIdx.x * kThreads + threadIdx.x;  // (n, c, h, v)
  if (i >= (long long)g.N * g.C * g.H * g.W) return;
  const int v = int(i % g.W), h = int(i / g.W % g.H);
  const long long nc = i / g.W / g.H;
  const int c = int(nc % g.C), n = int(nc / g.C);
  const int Cg = g.Cg(), Kg = g.Kg(), group = c / Cg;

  const T* dyk = dy + ((long long)n * g.K + group * Kg) * g.P * g.Q;
  const T* wk = w + ((long long)group * Kg * Cg + c % Cg) * g.R * g.S;
  acc_t<T> sum = 0;
  for (int k = 0; k < Kg; k++, dyk += g.P * g.Q, wk += (long long)Cg * g.R * g.S)
    over_windows(g, h, v, [&](int tap, int output) { sum += acc_t<T>(dyk[output]) * acc_t<T>(wk[tap]); });
  dx[i] = T(sum);
}

// dy [N, K, P, Q], x [N, C, H, W] -> dw [K, C/groups, R, S].  grid KCRS/groups: one block an element
template <class T>
__global__ void __launch_bounds__(kThreads)
    wgrad_kernel(Conv2d g, const T* __restrict__ dy, const T* __restrict__ x, T* __restrict__ dw) {
  const int s = blockIdx.x % g.S, r = blockIdx.x / g.S % g.R;
  const int c = blockIdx.x / g.S / g.R % g.Cg(), k = blockIdx.x / g.S / g.R / g.Cg();
  const long long y_image = (long long)g.K * g.P * g.Q, x_image = (long long)g.C * g.H * g.W;
  const T* dyk = dy + (long long)k * g.P * g.Q;
  const T* xc = x + ((long long)(k / g.Kg()) * g.Cg() + c) * g.H * g.W;

  acc_t<T> sum = 0;
  for (int n = 0; n < g.N; n++, dyk += y_image, xc += x_image)
    for (int pq = threadIdx.x; pq < g.P * g.Q; pq += kThreads) {
      const int h = pq / g.Q * g.stride_h - g.pad_h + r * g.dilation_h,
                v = pq % g.Q * g.stride_w - g.pad_w + s * g.dilation_w;
      if (h >= 0 && h < g.H && v >= 0 && v < g.W) sum += acc_t<T>(dyk[pq]) * acc_t<T>(xc[h * g.W + v]);
    }
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) dw[blockIdx.x] = T(sum);
}

void forward(const Plan&, const Conv2d& g, DType dtype, const void* x, const void* w, const void* bias, void* y, void*,
             Stream stream) {
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(forward_kernel<T>, blocks_for((long long)g.N * g.K * g.P * g.Q, kThreads), dim3(kThreads), 0, stream, g,
           static_cast<const T*>(x), static_cast<const T*>(w), static_cast<const T*>(bias), static_cast<T*>(y));
  });
}

void block(const Plan&, const Conv2d& g, const Ending& e, const Pool2d& pool, DType dtype, const void* x, const void* w,
           const void* bias, void* y, void* winners, Stream stream) {
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(block_kernel<T>, blocks_for(pool.planes * pool.P * pool.Q, direct_windows(e)), dim3(kThreads), 0, stream, g,
           static_cast<const T*>(x), static_cast<const T*>(w), static_cast<const T*>(bias),
           block_output<T>(e, pool, y, winners));
  });
}

void dgrad(const Plan&, const Conv2d& g, DType dtype, const void* dy, const void* w, void* dx, void*, Stream stream) {
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(dgrad_kernel<T>, blocks_for((long long)g.N * g.C * g.H * g.W, kThreads), dim3(kThreads), 0, stream, g,
           static_cast<const T*>(dy), static_cast<const T*>(w), static_cast<T*>(dx));
  });
}

void wgrad(const Plan&, const Conv2d& g, DType dtype, const void* dy, const void* x, void* dw, void* db, void*,
           Stream stream) {
  if (db) conv2d_bias_grad(g, dtype, dy, db, stream);
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(wgrad_kernel<T>, blocks_for((long long)g.K * g.Cg() * g.R * g.S, 1), dim3(kThreads), 0, stream, g,
           static_cast<const T*>(dy), static_cast<const T*>(x), static_cast<T*>(dw));
  });
}

const ConvKernels conv2d_direct(kDirect, forward, dgrad, wgrad, block);

}  // namespace
}  // namespace convlab
