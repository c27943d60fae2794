// PReLU: element by element with a slope for each channel, and the slopes' gradient.
//
//   scale   out = x > 0 ? (keep ? t : 0) : t w[c]     y where t = x, dx where t = dy
//   wgrad   dw[c] = sum of dy t over the elements of channel c where not x > 0
//
// What it does    scale: a thread makes one element. wgrad: a block adds up a slice of a channel's elements in a tree, and
//                 a thread per channel adds up its slices: no atomics, the same bits every time.
// What bounds it  memory: scale moves 3 elements an element, 2 where t is x; wgrad reads 3. Where channels lie innermost,
//                 neighbouring threads of wgrad load every C-th element.
// What is next    16 bytes a thread, as leaky_relu.cu has them; both gradients in one pass, which would read dy and x
//                 once.
// What is counted  by the simulator; tools/kernel_notes.py writes it here, and says how to read it
//                              x      w     dy   sectors   at least   conflicts
//   LeNet C3    dgrad       1.00 102836   1.00      3.25       3.25
//   LeNet C3    wgrad       1.00          0.50      9.99       3.32        1.00
//   ResNet-20   dgrad       1.00  16524   1.00      3.25       3.25
//   ResNet-20   wgrad       1.00          0.50      3.86       2.89        1.00
#include "device/reduce.h"
#include "kernels/launchers.h"

namespace convlab {
namespace {

constexpr int kThreads = 256;

// t, x [elements], w [channels] -> out [elements].  grid ceil(elements / 256)
template <class T>
__global__ void __launch_bounds__(kThreads)
    scale_kernel(ByChannel g, bool keep, const T* __restrict__ t, const T* __restrict__ x, const T* __restrict__ w,
                 T* __restrict__ out) {
  using A = acc_t<T>;
  const long long i = (long long)blockIdx.x * kThreads + threadIdx.x;
  if (i >= g.outer * g.channels * g.inner) return;
  const A value = A(t[i]);
  out[i] = T(A(x[i]) > A(0) ? (keep ? value : A(0)) : value * A(w[i / g.inner % g.channels]));
}

// dy, t, x [elements] -> parts [slices, channels].  grid slices channels
template <class T>
__global__ void __launch_bounds__(kThreads) wgrad_kernel(ByChannel g, const T* __restrict__ dy, const T* __restrict__ t,
                                                         const T* __restrict__ x, acc_t<T>* __restrict__ parts) {
  using A = acc_t<T>;
  const long long c = blockIdx.x % g.channels, slice = blockIdx.x / g.channels, slices = gridDim.x / g.channels;
  const long long all = g.outer * g.inner;
  const long long first = slice * all / slices, last = (slice + 1) * all / slices;
  A sum = 0;
  for (long long i = first + threadIdx.x; i < last; i += kThreads) {
    const long long at = (i / g.inner * g.channels + c) * g.inner + i % g.inner;
    if (!(A(x[at]) > A(0))) sum += A(dy[at]) * A(t[at]);
  }
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

// parts [slices, channels] -> dw [channels].  grid ceil(channels / 256)
template <class T>
__global__ void __launch_bounds__(kThreads)
    add_slices_kernel(long long channels, long long slices, const acc_t<T>* __restrict__ parts, T* __restrict__ dw) {
  const long long c = (long long)blockIdx.x * kThreads + threadIdx.x;
  if (c >= channels) return;
  acc_t<T> sum = 0;
  for (long long slice = 0; slice < slices; slice++) sum += parts[slice * channels + c];
  dw[c] = T(sum);
}

}  // namespace

void prelu_scale(const ByChannel& g, DType dtype, bool keep, const void* t, const void* x, const void* w, void* out,
                 Stream stream) {
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(scale_kernel<T>, blocks_for(g.elements(), kThreads), dim3(kThreads), 0, stream, g, keep,
           static_cast<const T*>(t), static_cast<const T*>(x), static_cast<const T*>(w), static_cast<T*>(out));
  });
}

void prelu_wgrad(const ByChannel& g, DType dtype, const void* dy, const void* t, const void* x, void* parts, void* dw,
                 Stream stream) {
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const long long slices = channel_slices(g);
    acc_t<T>* const sums = static_cast<acc_t<T>*>(parts);
    launch(wgrad_kernel<T>, blocks_for(slices * g.channels, 1), dim3(kThreads), 0, stream, g, static_cast<const T*>(dy),
           static_cast<const T*>(t), static_cast<const T*>(x), sums);
    launch(add_slices_kernel<T>, blocks_for(g.channels, kThreads), dim3(kThreads), 0, stream, g.channels, slices, sums,
           static_cast<T*>(dw));
  });
}

}  // namespace convlab
