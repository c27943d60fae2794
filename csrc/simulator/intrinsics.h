// CUDA's arithmetic functions that have no name in C++, or another one.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>

template <class T> T __ldg(const T* address) { return *address; }

inline float __int_as_float(int bits) { return std::bit_cast<float>(bits); }
inline int __float_as_int(float value) { return std::bit_cast<int>(value); }
inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }
inline unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }

inline float __fdividef(float a, float b) { return a / b; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
inline int __popc(unsigned bits) { return std::popcount(bits); }
inline int __ffs(int bits) { return bits ? std::countr_zero(unsigned(bits)) + 1 : 0; }
inline int __clz(int bits) { return std::countl_zero(unsigned(bits)); }

#define CONVLAB_SIM_MIN_MAX(T)                     \
  inline T min(T a, T b) { return b < a ? b : a; } \
  inline T max(T a, T b) { return a < b ? b : a; }
CONVLAB_SIM_MIN_MAX(int)
CONVLAB_SIM_MIN_MAX(unsigned)
CONVLAB_SIM_MIN_MAX(long)
CONVLAB_SIM_MIN_MAX(unsigned long)
CONVLAB_SIM_MIN_MAX(long long)
CONVLAB_SIM_MIN_MAX(unsigned long long)
CONVLAB_SIM_MIN_MAX(float)
CONVLAB_SIM_MIN_MAX(double)
#undef CONVLAB_SIM_MIN_MAX
