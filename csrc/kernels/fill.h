// Zeros for what a kernel does not write.
#pragma once
#include "device/device.h"
#include "device/vector.h"

namespace convlab {

constexpr int kFillThreads = 256, kFillTogether = 4;

// out [elements], which begins on a multiple of four elements.  grid ceil(elements / 1024)
template <class T> __global__ void __launch_bounds__(kFillThreads) zeros_kernel(long long elements, T* out) {
  long long i = ((long long)blockIdx.x * kFillThreads + threadIdx.x) * kFillTogether;
  const T zero = T(0.0f);
  if (i + kFillTogether <= elements) store_vector(out + i, Vector<T, kFillTogether>{{zero, zero, zero, zero}});
  else
    for (; i < elements; i++) out[i] = zero;
}

template <class T> void fill_with_zeros(long long elements, T* out, cudaStream_t stream) {
  launch(zeros_kernel<T>, blocks_for((elements + kFillTogether - 1) / kFillTogether, kFillThreads), dim3(kFillThreads),
         0, stream, elements, out);
}

}  // namespace convlab
