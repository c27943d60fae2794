// Stores of 8 or 16 bytes to shared memory in one access: vector.h's go anywhere, and are slower there.
//
//   store_shared(p, v);     v: a Vector<T, n> of so many bytes
#pragma once
#include "device/vector.h"

namespace convlab {

template <int n, class T> __device__ __forceinline__ void store_shared(T* p, const Vector<T, n>& v) {
  using W = typename Words<int(n * sizeof(T))>::type;
  W words;
  memcpy(&words, &v, sizeof v);
#if defined(__CUDACC__)
  const unsigned to = unsigned(__cvta_generic_to_shared(p));
  if constexpr (sizeof v == 16)
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(words.x), "r"(words.y), "r"(words.z),
                 "r"(words.w)
                 : "memory");
  else asm volatile("st.shared.v2.b32 [%0], {%1, %2};" ::"r"(to), "r"(words.x), "r"(words.y) : "memory");
#else
  *reinterpret_cast<W*>(p) = words;
#endif
}

}  // namespace convlab
