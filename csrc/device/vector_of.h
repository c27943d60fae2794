// Vectors of results: Vector<T, n> v = vector_of<T>(values), of 16 bits two values in one conversion.
#pragma once
#include <type_traits>

#include "device/vector.h"

namespace convlab {

template <class T, class A, int n> __device__ __forceinline__ Vector<T, n> vector_of(const A (&values)[n]) {
  Vector<T, n> v;
#pragma unroll
  for (int i = 0; i < n; i++) {
#if defined(__CUDACC__)
    if constexpr (sizeof(T) == 2 && n % 2 == 0) {
      if (i % 2) continue;
      if constexpr (std::is_same_v<T, __half>) {
        const __half2 two = __floats2half2_rn(values[i], values[i + 1]);
        memcpy(static_cast<void*>(&v.at[i]), &two, sizeof two);
      } else {
        const __nv_bfloat162 two = __floats2bfloat162_rn(values[i], values[i + 1]);
        memcpy(static_cast<void*>(&v.at[i]), &two, sizeof two);
      }
      continue;
    }
#endif
    v.at[i] = T(values[i]);
  }
  return v;
}

}  // namespace convlab
