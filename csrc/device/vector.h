// Several elements in one access of up to 16 bytes. The address must be a multiple of the access's size.
//
//   float4 v = load4(p);  store4(p, v);
//   Vector<T, n> v = load_vector<n>(p);  store_vector(p, v);      n elements of any type
//   float v = load_if(wanted, p);         one element that does not change during the kernel, or 0
//   Vector<float, n> v = load_vector_if<n>(wanted, p);      n such, in one access
#pragma once
#include "device/device.h"

namespace convlab {

template <class T, int n> struct alignas(n * sizeof(T)) Vector {
  T at[n];
};

constexpr int kWidestAccess = 16;  // bytes

// So many bytes as one access: both compilers may take a struct's members one by one.
template <int bytes> struct Words;
#if defined(__CUDACC__)

template <> struct Words<16> {
  using type = uint4;
};
template <> struct Words<8> {
  using type = uint2;
};
template <> struct Words<4> {
  using type = unsigned;
};
template <> struct Words<2> {
  using type = unsigned short;
};
template <> struct Words<1> {
  using type = unsigned char;
};

template <class W> __device__ __forceinline__ void store_words(W* p, W w) { *p = w; }
__device__ __forceinline__ void store_words(uint2* p, uint2 w) {
  asm volatile("st.v2.b32 [%0], {%1, %2};" ::"l"(p), "r"(w.x), "r"(w.y) : "memory");
}
__device__ __forceinline__ void store_words(uint4* p, uint4 w) {
  asm volatile("st.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(w.x), "r"(w.y), "r"(w.z), "r"(w.w) : "memory");
}

#else

template <int bytes> struct Words {
  typedef uint32_t type __attribute__((vector_size(bytes), may_alias));
};
template <> struct Words<4> {
  typedef uint32_t type __attribute__((may_alias));
};
template <> struct Words<2> {
  typedef uint16_t type __attribute__((may_alias));
};
template <> struct Words<1> {
  typedef uint8_t type __attribute__((may_alias));
};

template <class W> inline __attribute__((always_inline)) void store_words(W* p, W w) { *p = w; }

#endif

template <int n, class T> __device__ __forceinline__ Vector<T, n> load_vector(const T* p) {
  using W = typename Words<int(n * sizeof(T))>::type;
  const W words = *reinterpret_cast<const W*>(p);
  Vector<T, n> v;
  memcpy(static_cast<void*>(&v), &words, sizeof v);
  return v;
}

template <int n, class T> __device__ __forceinline__ void store_vector(T* p, const Vector<T, n>& v) {
  using W = typename Words<int(n * sizeof(T))>::type;
  W words;
  memcpy(&words, &v, sizeof v);
  store_words(reinterpret_cast<W*>(p), words);
}

__device__ __forceinline__ float4 load4(const float* p) {
  const Vector<float, 4> v = load_vector<4>(p);
  return make_float4(v.at[0], v.at[1], v.at[2], v.at[3]);
}

__device__ __forceinline__ void store4(float* p, float4 v) { store_vector(p, Vector<float, 4>{{v.x, v.y, v.z, v.w}}); }

// *p as a float if wanted, else 0. One predicated load and never a branch; p need not be an address where it is not
// wanted.
#if defined(__CUDACC__)

__device__ __forceinline__ float load_if(bool wanted, const float* p) {
  float value;
  asm("{\n .reg .pred wanted;\n setp.ne.b32 wanted, %2, 0;\n mov.b32 %0, 0;\n @wanted ld.global.nc.f32 %0, [%1];\n}"
      : "=f"(value)
      : "l"(p), "r"(int(wanted)));
  return value;
}

template <class T> __device__ __forceinline__ float load_if(bool wanted, const T* p) {
  static_assert(sizeof(T) == 2, "float16 and bfloat16");
  unsigned short bits;
  asm("{\n .reg .pred wanted;\n setp.ne.b32 wanted, %2, 0;\n mov.b16 %0, 0;\n @wanted ld.global.nc.b16 %0, [%1];\n}"
      : "=h"(bits)
      : "l"(p), "r"(int(wanted)));
  T value;
  memcpy(&value, &bits, sizeof value);
  return float(value);
}

template <int n, class T> __device__ __forceinline__ Vector<float, n> load_vector_if(bool wanted, const T* p) {
  constexpr int kWords = n * int(sizeof(T)) / 4;
  static_assert(kWords * 4 == n * int(sizeof(T)) && (kWords == 1 || kWords == 2 || kWords == 4), "4, 8 or 16 bytes");
  unsigned words[kWords];
  if constexpr (kWords == 1)
    asm("{\n .reg .pred wanted;\n setp.ne.b32 wanted, %2, 0;\n mov.b32 %0, 0;\n @wanted ld.global.nc.b32 %0, [%1];\n}"
        : "=&r"(words[0])
        : "l"(p), "r"(int(wanted)));
  else if constexpr (kWords == 2)
    asm("{\n .reg .pred wanted;\n setp.ne.b32 wanted, %3, 0;\n mov.b32 %0, 0;\n mov.b32 %1, 0;\n @wanted "
        "ld.global.nc.v2.b32 {%0, %1}, [%2];\n}"
        : "=&r"(words[0]), "=&r"(words[1])
        : "l"(p), "r"(int(wanted)));
  else
    asm("{\n .reg .pred wanted;\n setp.ne.b32 wanted, %5, 0;\n mov.b32 %0, 0;\n mov.b32 %1, 0;\n mov.b32 %2, 0;\n "
        "mov.b32 %3, 0;\n @wanted ld.global.nc.v4.b32 {%0, %1, %2, %3}, [%4];\n}"
        : "=&r"(words[0]), "=&r"(words[1]), "=&r"(words[2]), "=&r"(words[3])
        : "l"(p), "r"(int(wanted)));
  Vector<T, n> elements;
  memcpy(static_cast<void*>(&elements), words, sizeof elements);
  Vector<float, n> v;
#pragma unroll
  for (int i = 0; i < n; i++) v.at[i] = float(elements.at[i]);
  return v;
}

#else

template <int n, class T>
inline __attribute__((always_inline)) Vector<float, n> load_vector_if(bool wanted, const T* p) {
  Vector<float, n> v{};
  if (!wanted) return v;
  const Vector<T, n> elements = load_vector<n>(p);
  for (int i = 0; i < n; i++) v.at[i] = float(elements.at[i]);
  return v;
}

template <class T> inline __attribute__((always_inline)) float load_if(bool wanted, const T* p) {
  return wanted ? float(*p) : 0.0f;
}

#endif

}  // namespace convlab
