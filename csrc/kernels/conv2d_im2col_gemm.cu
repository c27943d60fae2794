// Convolution, im2col and GEMM: unroll the input into a matrix in device memory, then multiply matrices.
//
//   unroll   u[n, (c, r, s), p, q] = x[n, c, p stride_h - pad_h + r dilation_h, q stride_w - pad_w + s dilation_w],
//                                    zeros outside x
//
// Over u, every convolution is a pointwise one: 1 x 1 filters, C R S channels, no padding. So all three passes are the
// products of conv2d_as_gemm.h for that problem, in the shared-memory tiles of gemm.h:
//
//   forward  y  = pointwise forward of u
//   dgrad    dx = col2im(pointwise dgrad of dy)
//   wgrad    dw = pointwise wgrad of dy and u
//
// What it does    works through the batch in chunks of as many images as fit a budget of workspace
//                 (conv2d_im2col_gemm_plan.h), so any N will do. unroll: a thread has four neighbours of u, one access
//                 where rows are whole fours, and finds them without a division. col2im: a thread an element of dx,
//                 which it gathers, so there are no atomics. wgrad's sums of each chunk are added in order.
// Against `tiled`  a matrix product is the one kernel everybody knows how to make fast, for every filter size.
// What bounds it  memory: u is up to R S times x, written once and read once more (19.1 times for LeNet C1, 12.8 for
//                 C3).
// What is next    not to write u: unroll while a tile of it is loaded.
// What is counted  by the simulator; tools/kernel_notes.py writes it here, and says how to read it
//                              x      w     dy   workspace   sectors   at least   conflicts   shared
//   LeNet C3    forward     12.8    200               10.5      9.57       4.81        1.05     12.6
//   LeNet C3    dgrad               213   10.0        10.5      9.14       3.60        1.04     23.2
//   LeNet C3    wgrad       12.8          10.0        11.6      9.34       4.81        1.05     12.2
//   ResNet-20   forward     8.27   16.0               8.64      6.67       4.53        1.05     11.6
//   ResNet-20   dgrad              16.0   18.0        5.53      8.25       3.97        1.04     16.4
//   ResNet-20   wgrad       8.27          18.0        8.64      6.67       4.53        1.05     11.4
#include "device/divisor.h"
#include "kernels/conv2d_gemm_launch.h"
#include "kernels/conv2d_im2col_gemm_plan.h"
#include "kernels/tile_shapes.h"
#include "kernels/windows.h"

namespace convlab {
namespace {

using SharedTile = Tile<kSharedTile.M, kSharedTile.N, kSharedTile.K, kSharedTile.rows, kSharedTile.columns>;

constexpr int kThreads = 256;

constexpr int kUnrolled = 4;  // elements of u a thread, side by side

// Pieces of a row of u, [P Q]; the rest as in Conv2d. A chunk has less than 2^31 elements.
struct Unrolling {
  Divisor pieces, taps, S, Q;
};

// x [N, C, H, W] -> u [N, C R S, P, Q].  grid ceil(N CRS ceil(PQ / 4) / 256)
__global__ void __launch_bounds__(kThreads)
    unroll_kernel(Conv2d g, Unrolling by, const float* __restrict__ x, float* __restrict__ u) {
  const unsigned i = blockIdx.x * kThreads + threadIdx.x, row = by.pieces.quotient(i);  // (n, c, r, s)
  const unsigned plane = by.taps.quotient(row), tap = row - plane * by.taps.by;
  if (plane >= unsigned(g.N) * unsigned(g.C)) return;
  const int outputs = g.P * g.Q, first = int(i - row * by.pieces.by) * kUnrolled;
  const int r = int(by.S.quotient(tap)), s = int(tap) - r * g.S;
  const int p = int(by.Q.quotient(unsigned(first)));
  int h = p * g.stride_h - g.pad_h + r * g.dilation_h, q = first - p * g.Q;
  const int left = s * g.dilation_w - g.pad_w;
  const float* const xc = x + (long long)plane * (g.H * g.W);
  float values[kUnrolled];
#pragma unroll
  for (int j = 0; j < kUnrolled; j++) {
    const int v = left + q * g.stride_w;
    const bool inside = first + j < outputs && unsigned(h) < unsigned(g.H) && unsigned(v) < unsigned(g.W);
    values[j] = load_if(inside, xc + (inside ? h * g.W + v : 0));
    if (++q == g.Q) q = 0, h += g.stride_h;
  }
  u += (long long)row * outputs + first;
  if (outputs % kUnrolled == 0)
    return store_vector(u, Vector<float, kUnrolled>{{values[0], values[1], values[2], values[3]}});
#pragma unroll
  for (int j = 0; j < kUnrolled; j++)
    if (first + j < outputs) u[j] = values[j];
}

// du [N, C R S, P, Q] -> dx [N, C, H, W]: each element of x gathers the positions it was unrolled to.
// grid ceil(NCHW / 256)
__global__ void __launch_bounds__(kThreads)
    col2im_kernel(Conv2d g, const float* __restrict__ du, float* __restrict__ dx) {
  const long long i = (long long)blockIdx.x * kThreads + threadIdx.x;  // (n, c, h, v)
  if (i >= (long long)g.N * g.C * g.H * g.W) return;
  const int v = int(i % g.W), h = int(i / g.W % g.H);
  const float* dup = du + i / g.W / g.H * g.R * g.S * g.P * g.Q;
  float sum = 0;
  over_windows(g, h, v, [&](int tap, int output) { sum += dup[(long long)tap * g.P * g.Q + output]; });
  dx[i] = sum;
}

// Calls f(problem of the chunk, images before it, number of the chunk).
template <class F> void over_chunks(const Plan& plan, const Conv2d& g, const F& f) {
  for (int n0 = 0; n0 < g.N; n0 += plan.images) {
    Conv2d chunk = g;
    chunk.N = min(plan.images, g.N - n0);
    f(chunk, (long long)n0, n0 / plan.images);
  }
}

void unroll(const Conv2d& g, const float* x, float* u, Stream stream) {
  const long long pieces = ceil_div((long long)g.P * g.Q, kUnrolled), taps = (long long)g.R * g.S;
  launch(unroll_kernel, blocks_for((long long)g.N * g.C * taps * pieces, kThreads), dim3(kThreads), 0, stream, g,
         Unrolling{Divisor(pieces), Divisor(taps), Divisor(g.S), Divisor(g.Q)}, x, u);
}

void forward(const Plan& plan, const Conv2d& g, DType, const void* x, const void* w, const void* bias, void* y,
             void* workspace, Stream stream) {
  float* u = static_cast<float*>(workspace);
  over_chunks(plan, g, [&](const Conv2d& chunk, long long n0, int) {
    unroll(chunk, static_cast<const float*>(x) + n0 * g.C * g.H * g.W, u, stream);
    launch_gemm_forward<SharedTile, float>(plan, pointwise(chunk), u, w, bias,
                                           static_cast<float*>(y) + n0 * g.K * g.P * g.Q, stream);
  });
}

void dgrad(const Plan& plan, const Conv2d& g, DType, const void* dy, const void* w, void* dx, void* workspace,
           Stream stream) {
  float* du = static_cast<float*>(workspace);
  over_chunks(plan, g, [&](const Conv2d& chunk, long long n0, int) {
    launch_gemm_dgrad<SharedTile, float>(plan, pointwise(chunk), static_cast<const float*>(dy) + n0 * g.K * g.P * g.Q,
                                         w, du, stream);
    launch(col2im_kernel, blocks_for((long long)chunk.N * g.C * g.H * g.W, kThreads), dim3(kThreads), 0, stream, chunk,
           du, static_cast<float*>(dx) + n0 * g.C * g.H * g.W);
  });
}

// workspace: u, then the chunks' partial sums [chunks, slices, K, C/groups, R, S] and [chunks, slices, K]
void wgrad(const Plan& plan, const Conv2d& g, DType, const void* dy, const void* x, void* dw, void* db, void* workspace,
           Stream stream) {
  const long long filters = (long long)g.K * g.Cg() * g.R * g.S;
  const int slices = (g.N + plan.images - 1) / plan.images * plan.slices;
  float* u = static_cast<float*>(workspace);
  float* partial = u + (long long)plan.images * g.C * g.R * g.S * g.P * g.Q;
  float* partial_db = db ? slices_at(slices, partial + slices * filters, static_cast<float*>(db)) : nullptr;
  partial = slices_at(slices, partial, static_cast<float*>(dw));
  over_chunks(plan, g, [&](const Conv2d& chunk, long long n0, int i) {
    unroll(chunk, static_cast<const float*>(x) + n0 * g.C * g.H * g.W, u, stream);
    launch_gemm_slices<SharedTile, float>(plan, pointwise(chunk), static_cast<const float*>(dy) + n0 * g.K * g.P * g.Q,
                                          u, partial + i * plan.slices * filters,
                                          db ? partial_db + (long long)i * plan.slices * g.K : nullptr, stream);
  });
  add_slices(slices, filters, partial, static_cast<float*>(dw), stream);
  if (db) add_slices(slices, g.K, partial_db, static_cast<float*>(db), stream);
}

const ConvKernels conv2d_im2col_gemm(kIm2colGemm, forward, dgrad, wgrad);

}  // namespace
}  // namespace convlab
