// Max unpooling: y[indices[i]] = x[i] in each plane, 0 where no index points; and the gather that is its gradient.
//
// What it does    elements first claim their positions, by atomicMax of their numbers, which gives the same owner in any
//                 order: the last. Then a thread an output reads what its owner has, so that every element is written
//                 once. Indices outside the plane are nobody's.
// What bounds it  memory: the owners are 4 bytes an output, written twice and read once, beside y.
// What is next    owners in shared memory, a block a plane, where a plane has a few thousand outputs.
// What is counted  by the simulator; tools/kernel_notes.py writes it here, and says how to read it
//                              x   sectors   at least
//   LeNet C3    forward     0.81      3.83       3.38
//   LeNet C3    gather      0.09      11.3       5.28
//   ResNet-20   forward     0.88      3.71       3.48
//   ResNet-20   gather      0.04      13.0       5.33
#include "device/device.h"
#include "kernels/adaptive_pool2d.h"

namespace convlab {
namespace {

constexpr int kThreads = 256;
constexpr int kNobody = -1;

// owners [outputs] = nobody.  grid ceil(outputs / 256)
__global__ void __launch_bounds__(kThreads) nobody_kernel(long long outputs, int* __restrict__ owners) {
  const long long o = (long long)blockIdx.x * kThreads + threadIdx.x;
  if (o < outputs) owners[o] = kNobody;
}

// indices [planes, P, Q] -> owners [planes, H, W].  grid ceil(planes PQ / 256)
__global__ void __launch_bounds__(kThreads)
    claim_kernel(Adaptive g, const long long* __restrict__ indices, int* __restrict__ owners) {
  const long long i = (long long)blockIdx.x * kThreads + threadIdx.x, size = (long long)g.H * g.W;
  if (i >= g.planes * g.P * g.Q) return;
  const long long index = indices[i], plane = i / g.Q / g.P;
  if (index >= 0 && index < size) atomicMax(owners + plane * size + index, int(i - plane * g.P * g.Q));
}

// x [planes, P, Q], owners [planes, H, W] -> y [planes, H, W].  grid ceil(planes HW / 256)
template <class T>
__global__ void __launch_bounds__(kThreads)
    place_kernel(Adaptive g, const T* __restrict__ x, const int* __restrict__ owners, T* __restrict__ y) {
  const long long o = (long long)blockIdx.x * kThreads + threadIdx.x;
  if (o >= g.planes * g.H * g.W) return;
  const int owner = owners[o];
  y[o] = owner == kNobody ? T(0.0f) : x[o / g.W / g.H * g.P * g.Q + owner];
}

// x [planes, H, W], indices [planes, P, Q] -> y [planes, P, Q].  grid ceil(planes PQ / 256)
template <class T>
__global__ void __launch_bounds__(kThreads)
    gather_kernel(Adaptive g, const T* __restrict__ x, const long long* __restrict__ indices, T* __restrict__ y) {
  const long long i = (long long)blockIdx.x * kThreads + threadIdx.x, size = (long long)g.H * g.W;
  if (i >= g.planes * g.P * g.Q) return;
  const long long index = indices[i];
  y[i] = index >= 0 && index < size ? x[i / g.Q / g.P * size + index] : T(0.0f);
}

}  // namespace

void max_unpool(const Adaptive& g, DType dtype, const void* x, const void* indices, void* owners, void* y,
                Stream stream) {
  const long long inputs = g.planes * g.P * g.Q, outputs = g.planes * g.H * g.W;
  int* const owner = static_cast<int*>(owners);
  launch(nobody_kernel, blocks_for(outputs, kThreads), dim3(kThreads), 0, stream, outputs, owner);
  if (inputs > 0)
    launch(claim_kernel, blocks_for(inputs, kThreads), dim3(kThreads), 0, stream, g,
           static_cast<const long long*>(indices), owner);
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(place_kernel<T>, blocks_for(outputs, kThreads), dim3(kThreads), 0, stream, g, static_cast<const T*>(x),
           owner, static_cast<T*>(y));
  });
}

void planes_gather(const Adaptive& g, DType dtype, const void* x, const void* indices, void* y, Stream stream) {
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(gather_kernel<T>, blocks_for(g.planes * g.P * g.Q, kThreads), dim3(kThreads), 0, stream, g,
           static_cast<const T*>(x), static_cast<const long long*>(indices), static_cast<T*>(y));
  });
}

}  // namespace convlab
