// Adding up the partial sums of a wgrad whose sum was cut into slices: in the order of the slices, so the same bits
// every time.
#pragma once
#include <type_traits>

#include "device/device.h"

namespace convlab {

constexpr int kAddThreads = 256;

// partial [slices, elements] -> sum [elements].  grid ceil(elements / 256)
template <class T>
__global__ void __launch_bounds__(kAddThreads)
    add_slices_kernel(int slices, long long elements, const float* partial, T* sum) {
  const long long i = (long long)blockIdx.x * kAddThreads + threadIdx.x;
  if (i >= elements) return;
  float total = 0;
  for (int slice = 0; slice < slices; slice++) total += partial[slice * elements + i];
  sum[i] = T(total);
}

// Where a kernel leaves its slices, which `partial` has room for: one alone of float32 is the sum
template <class T> float* slices_at(int slices, float* partial, T* sum) {
  if constexpr (std::is_same_v<T, float>)
    if (slices == 1) return sum;
  return partial;
}

template <class T> void add_slices(int slices, long long elements, const float* partial, T* sum, cudaStream_t stream) {
  if (static_cast<const void*>(partial) == sum) return;
  launch(add_slices_kernel<T>, blocks_for(elements, kAddThreads), dim3(kAddThreads), 0, stream, slices, elements,
         partial, sum);
}

// partial [slices, K, taps, C] -> sum [K, C, taps], from channels_last as the kernel that made it stores fastest.
template <class T>
__global__ void __launch_bounds__(kAddThreads)
    add_filter_slices_kernel(int slices, int elements, int C, int taps, const float* partial, T* sum) {
  const int i = int(blockIdx.x) * kAddThreads + int(threadIdx.x);
  if (i >= elements) return;
  float total = 0;
  for (int slice = 0; slice < slices; slice++) total += partial[(long long)slice * elements + i];
  const int tap = i / C % taps, c = i % C;
  sum[i - (tap * C + c) + c * taps + tap] = T(total);
}

template <class T>
void add_filter_slices(int slices, int K, int C, int taps, bool channels_last, const float* partial, T* sum,
                       cudaStream_t stream) {
  const int elements = K * C * taps;
  if (channels_last || taps == 1) return add_slices(slices, elements, partial, sum, stream);
  launch(add_filter_slices_kernel<T>, blocks_for(elements, kAddThreads), dim3(kAddThreads), 0, stream, slices, elements,
         C, taps, partial, sum);
}

}  // namespace convlab
