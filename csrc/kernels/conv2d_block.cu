// A block's ending: the activation and the max pooling behind a convolution, and their gradient.
//
//   finish   y[p,q] = max over r < R, s < S of activated(x[p R + r, q S + s]); the winner's r S + s and whether it passes
//            the gradient go to one byte
//   spread   dx[h,w] = dy of the window over (h, w) if that won, as its activation lets it pass; else 0
//
// What it does    one thread an element of what is written.
// What bounds it  memory: it reads what the convolution wrote, and writes a pooled tensor and its bytes. Two passes of an
//                 activation and a pooling read and write the full size once more each way.
// What is next    to be the epilogue of more of the kernels that make x, which is then never written: small_filter and
//                 direct have it (kernels/block_ending.h). The gradient, in the loaders of dgrad and wgrad.
// What is counted  by the simulator; tools/kernel_notes.py writes it here, and says how to read it
//                              x      w     dy   workspace   sectors   at least   conflicts
//   LeNet C3    forward     4.59   7.00                         12.1       3.79        1.00
//   LeNet C3    backward    8.57   8.00   1.00        0.18      8.32       2.93        1.00
//   ResNet-20   forward     16.5   2.00                         3.82       3.82        1.00
//   ResNet-20   backward    16.5   2.00   1.00                  3.85       3.44        1.00
#include "device/device.h"
#include "kernels/block_ending.h"
#include "kernels/conv2d_block.h"

namespace convlab {
namespace {

constexpr int kThreads = 256;

// x [planes, H, W] -> y, winners [planes, P, Q].  grid ceil(planes PQ / 256)
template <class T>
__global__ void __launch_bounds__(kThreads) finish_kernel(Pool2d g, const T* __restrict__ x, BlockOutput<T> to) {
  const long long i = (long long)blockIdx.x * kThreads + threadIdx.x;  // (plane, p, q)
  if (i >= g.planes * g.P * g.Q) return;
  const int q = int(i % g.Q), p = int(i / g.Q % g.P);
  const T* const first = x + (i / g.Q / g.P * g.H + (long long)p * g.R) * g.W + (long long)q * g.S;
  Winner<T> winner;
  for (int r = 0; r < g.R; r++)
    for (int s = 0; s < g.S; s++) winner.take(to.ending, acc_t<T>(first[(long long)r * g.W + s]), r * g.S + s);
  to.store(i, winner);
}

// dy, winners [planes, P, Q] -> dx [planes, H, W].  grid ceil(planes HW / 256)
template <class T>
__global__ void __launch_bounds__(kThreads)
    spread_kernel(Ending e, Pool2d g, const T* __restrict__ dy, const unsigned char* __restrict__ winners,
                  T* __restrict__ dx) {
  using A = acc_t<T>;
  const long long i = (long long)blockIdx.x * kThreads + threadIdx.x;  // (plane, h, w)
  if (i >= g.planes * g.H * g.W) return;
  const int w = int(i % g.W), h = int(i / g.W % g.H), p = h / g.R, q = w / g.S;
  A grad = A(0);
  if (p < g.P && q < g.Q) {
    const long long at = (i / g.W / g.H * g.P + p) * g.Q + q;
    const int winner = winners[at];
    if (winner % kPasses == h % g.R * g.S + w % g.S) {
      grad = A(dy[at]);
      if (winner < kPasses) grad = held_back(e.activation, A(e.slope), grad);
    }
  }
  dx[i] = T(grad);
}

}  // namespace

void block_finish(const Ending& e, const Pool2d& g, DType dtype, const void* x, void* y, void* winners, Stream stream) {
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(finish_kernel<T>, blocks_for(g.planes * g.P * g.Q, kThreads), dim3(kThreads), 0, stream, g,
           static_cast<const T*>(x), block_output<T>(e, g, y, winners));
  });
}

void block_spread(const Ending& e, const Pool2d& g, DType dtype, const void* dy, const void* winners, void* dx,
                  Stream stream) {
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(spread_kernel<T>, blocks_for(g.planes * g.H * g.W, kThreads), dim3(kThreads), 0, stream, e, g,
           static_cast<const T*>(dy), static_cast<const unsigned char*>(winners), static_cast<T*>(dx));
  });
}

}  // namespace convlab
