// __half and its usual functions.
#pragma once
#include "simulator/plain/small_float.h"

using __half = convlab::sim::plain::SmallFloat<convlab::float16>;
using __half2 = convlab::sim::plain::SmallFloat2<convlab::float16>;
using half = __half;
using half2 = __half2;

inline __half __float2half(float x) { return x; }
inline __half __float2half_rn(float x) { return x; }
inline __half __double2half(double x) { return x; }
inline __half __int2half_rn(int x) { return x; }
inline float __half2float(__half x) { return x; }
inline int __half2int_rn(__half x) { return int(std::nearbyint(float(x))); }
inline __half2 make_half2(__half x, __half y) { return {x, y}; }
inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
inline __half2 __half2half2(__half x) { return {x, x}; }
inline __half2 __float2half2_rn(float x) { return {x, x}; }
inline __half2 __floats2half2_rn(float x, float y) { return {x, y}; }
inline __half2 __float22half2_rn(float2 v) { return {v.x, v.y}; }
inline float2 __half22float2(__half2 v) { return make_float2(v.x, v.y); }
inline float __low2float(__half2 v) { return v.x; }
inline float __high2float(__half2 v) { return v.y; }
inline __half hexp(__half x) { return std::exp(float(x)); }
inline __half hsqrt(__half x) { return std::sqrt(float(x)); }
