// The gradient to a convolution's bias: db[k] = sum over n, p, q of dy[n,k,p,q].
//
// What it does    a block per channel k goes over its N planes as one row, four accesses of 16 bytes a thread under way
//                 at once where planes are whole vectors, and adds up its threads' parts in a tree: no atomics, the same
//                 bits every time.
// What bounds it  memory, once K blocks fill the GPU: each dy crosses the bus once. With few channels (LeNet C1: six)
//                 most multiprocessors idle, and what the others keep under way, 32 KB each, is the limit.
// What is next    slices of a channel, and a second launch. The wgrad kernels load every dy anyway; those that tile sum
//                 it on the way.
// What is counted  by the simulator; tools/kernel_notes.py writes it here, and says how to read it
//                             dy   sectors   at least   conflicts
//   LeNet C3    bias        1.00      16.5       15.4        1.00
//   ResNet-20   bias        1.00      11.0       11.0        1.00
#include "device/reduce.h"
#include "device/vector.h"
#include "kernels/launchers.h"

namespace convlab {
namespace {

constexpr int kThreads = 512, kTogether = 4;

// dy [N, K, P, Q] -> db [K], n elements in an access.  grid K
template <class T, int n>
__global__ void __launch_bounds__(kThreads) bias_grad_kernel(Conv2d g, const T* __restrict__ dy, T* __restrict__ db) {
  const int vectors = g.P * g.Q / n;  // of a plane
  const int images_on = kThreads / vectors, on = kThreads % vectors;
  const T* const dyk = dy + (long long)blockIdx.x * (g.P * g.Q);
  int image = int(threadIdx.x) / vectors, at = int(threadIdx.x) % vectors;
  acc_t<T> sum = 0;
#pragma unroll 1
  while (image < g.N) {
    Vector<T, n> loaded[kTogether];
    bool exists[kTogether];
#pragma unroll
    for (int i = 0; i < kTogether; i++) {
      exists[i] = image < g.N;
      if (exists[i]) loaded[i] = load_vector<n>(dyk + (long long)image * g.K * (g.P * g.Q) + at * n);
      at += on, image += images_on;
      if (at >= vectors) at -= vectors, image++;
    }
#pragma unroll
    for (int i = 0; i < kTogether; i++)
      if (exists[i])
#pragma unroll
        for (int j = 0; j < n; j++) sum += acc_t<T>(loaded[i].at[j]);
  }
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) db[blockIdx.x] = T(sum);
}

}  // namespace

void conv2d_bias_grad(const Conv2d& g, DType dtype, const void* dy, void* db, Stream stream) {
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    constexpr int n = kWidestAccess / int(sizeof(T));
    const bool vectors = g.P * g.Q % n == 0 && reinterpret_cast<size_t>(dy) % kWidestAccess == 0;
    launch(vectors ? bias_grad_kernel<T, n> : bias_grad_kernel<T, 1>, dim3(g.K), dim3(kThreads), 0, stream, g,
           static_cast<const T*>(dy), static_cast<T*>(db));
  });
}

}  // namespace convlab
