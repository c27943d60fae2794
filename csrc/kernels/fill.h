// Zeros for what a kernel does not write.
#pragma once
#include "device/device.h"
#include "device/vector.h"

namespace convlab {

constexpr int kFillThreads = 256;
template <class T> constexpr int kFillTogether = kWidestAccess / int(sizeof(T));  // a thread's, in one access

// out [elements], which begins on a multiple of 16 bytes.  grid ceil(16-byte pieces / 256)
template <class T> __global__ void __launch_bounds__(kFillThreads) zeros_kernel(long long elements, T* out) {
  long long i = ((long long)blockIdx.x * kFillThreads + threadIdx.x) * kFillTogether<T>;
  if (i + kFillTogether<T> <= elements) store_vector(out + i, Vector<T, kFillTogether<T>>{});
  else
    for (; i < elements; i++) out[i] = T(0.0f);
}

template <class T> void fill_with_zeros(long long elements, T* out, cudaStream_t stream) {
  launch(zeros_kernel<T>, blocks_for((elements + kFillTogether<T> - 1) / kFillTogether<T>, kFillThreads),
         dim3(kFillThreads), 0, stream, elements, out);
}

}  // namespace convlab
