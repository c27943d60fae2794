// The gradient to a convolution's bias: db[k] = sum over n, p, q of dy[n,k,p,q].
//
// What it does    a block per channel k walks its N planes, coalesced, and adds up its threads' parts in a tree: no
//                 atomics, the same bits every time.
// What bounds it  memory, once K blocks fill the GPU: each dy crosses the bus once. With few channels (LeNet C1: six)
//                 most multiprocessors idle.
// What is next    the wgrad kernels load every dy anyway; those that tile can sum it on the way.
// What is counted  by the simulator; tools/kernel_notes.py writes it here, and says how to read it
//                             dy   sectors   at least   conflicts
//   LeNet C3    bias        1.00      3.60       3.23        1.00
//   ResNet-20   bias        1.00      3.67       3.67        1.00
#include "device/reduce.h"
#include "kernels/launchers.h"

namespace convlab {
namespace {

constexpr int kThreads = 256;

// dy [N, K, P, Q] -> db [K].  grid K
template <class T>
__global__ void __launch_bounds__(kThreads) bias_grad_kernel(Conv2d g, const T* __restrict__ dy, T* __restrict__ db) {
  const int plane = g.P * g.Q;
  const T* dyk = dy + (long long)blockIdx.x * plane;
  acc_t<T> sum = 0;
  for (int n = 0; n < g.N; n++, dyk += (long long)g.K * plane)
    for (int pq = threadIdx.x; pq < plane; pq += kThreads) sum += acc_t<T>(dyk[pq]);
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) db[blockIdx.x] = T(sum);
}

}  // namespace

void conv2d_bias_grad(const Conv2d& g, DType dtype, const void* dy, void* db, Stream stream) {
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(bias_grad_kernel<T>, dim3(g.K), dim3(kThreads), 0, stream, g, static_cast<const T*>(dy),
           static_cast<T*>(db));
  });
}

}  // namespace convlab
