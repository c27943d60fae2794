// CUDA's 16-bit floats with their arithmetic: every operation in float32, rounded to 16 bits. Bits is convlab's type of
// the same bits (dtype.h).
#pragma once
#include "dtype.h"
#include "simulator/plain/cuda_runtime.h"

namespace convlab::sim::plain {

template <class Bits> struct SmallFloat {
  Bits bits;

  SmallFloat() = default;
  template <class N>
    requires std::is_arithmetic_v<N>
  SmallFloat(N number) : bits(float(number)) {}
  operator float() const { return float(bits); }

  friend SmallFloat operator+(SmallFloat a, SmallFloat b) { return float(a) + float(b); }
  friend SmallFloat operator-(SmallFloat a, SmallFloat b) { return float(a) - float(b); }
  friend SmallFloat operator*(SmallFloat a, SmallFloat b) { return float(a) * float(b); }
  friend SmallFloat operator/(SmallFloat a, SmallFloat b) { return float(a) / float(b); }
  friend SmallFloat operator-(SmallFloat a) { return -float(a); }
  friend SmallFloat& operator+=(SmallFloat& a, SmallFloat b) { return a = a + b; }
  friend SmallFloat& operator-=(SmallFloat& a, SmallFloat b) { return a = a - b; }
  friend SmallFloat& operator*=(SmallFloat& a, SmallFloat b) { return a = a * b; }
  friend SmallFloat& operator/=(SmallFloat& a, SmallFloat b) { return a = a / b; }
  friend bool operator==(SmallFloat a, SmallFloat b) { return float(a) == float(b); }
  friend bool operator<(SmallFloat a, SmallFloat b) { return float(a) < float(b); }
  friend bool operator>(SmallFloat a, SmallFloat b) { return float(a) > float(b); }
  friend bool operator<=(SmallFloat a, SmallFloat b) { return float(a) <= float(b); }
  friend bool operator>=(SmallFloat a, SmallFloat b) { return float(a) >= float(b); }
};

template <class Bits> struct alignas(4) SmallFloat2 {
  using One = SmallFloat<Bits>;
  One x, y;

  friend SmallFloat2 operator+(SmallFloat2 a, SmallFloat2 b) { return {a.x + b.x, a.y + b.y}; }
  friend SmallFloat2 operator-(SmallFloat2 a, SmallFloat2 b) { return {a.x - b.x, a.y - b.y}; }
  friend SmallFloat2 operator*(SmallFloat2 a, SmallFloat2 b) { return {a.x * b.x, a.y * b.y}; }
};

// a * b + c, rounded once: the product of two 16-bit floats is exact in float64, and so is all but the last sum.
template <class Bits> SmallFloat<Bits> fused(SmallFloat<Bits> a, SmallFloat<Bits> b, SmallFloat<Bits> c) {
  return float(double(float(a)) * double(float(b)) + double(float(c)));
}

}  // namespace convlab::sim::plain

#define CONVLAB_ONE template <class B>::convlab::sim::plain::SmallFloat<B>
#define CONVLAB_TWO template <class B>::convlab::sim::plain::SmallFloat2<B>
#define CONVLAB_A ::convlab::sim::plain::SmallFloat<B> a
#define CONVLAB_B ::convlab::sim::plain::SmallFloat<B> b
#define CONVLAB_C ::convlab::sim::plain::SmallFloat<B> c
#define CONVLAB_A2 ::convlab::sim::plain::SmallFloat2<B> a
#define CONVLAB_B2 ::convlab::sim::plain::SmallFloat2<B> b
#define CONVLAB_C2 ::convlab::sim::plain::SmallFloat2<B> c
CONVLAB_ONE __hadd(CONVLAB_A, CONVLAB_B) { return a + b; }
CONVLAB_ONE __hsub(CONVLAB_A, CONVLAB_B) { return a - b; }
CONVLAB_ONE __hmul(CONVLAB_A, CONVLAB_B) { return a * b; }
CONVLAB_ONE __hdiv(CONVLAB_A, CONVLAB_B) { return a / b; }
CONVLAB_ONE __hneg(CONVLAB_A) { return -a; }
CONVLAB_ONE __habs(CONVLAB_A) { return std::fabs(float(a)); }
CONVLAB_ONE __hfma(CONVLAB_A, CONVLAB_B, CONVLAB_C) { return ::convlab::sim::plain::fused(a, b, c); }
CONVLAB_ONE __hmax(CONVLAB_A, CONVLAB_B) { return std::fmax(float(a), float(b)); }
CONVLAB_ONE __hmin(CONVLAB_A, CONVLAB_B) { return std::fmin(float(a), float(b)); }
template <class B> bool __hgt(CONVLAB_A, CONVLAB_B) { return a > b; }
template <class B> bool __hlt(CONVLAB_A, CONVLAB_B) { return a < b; }
template <class B> bool __hge(CONVLAB_A, CONVLAB_B) { return a >= b; }
template <class B> bool __hle(CONVLAB_A, CONVLAB_B) { return a <= b; }
template <class B> bool __heq(CONVLAB_A, CONVLAB_B) { return a == b; }
template <class B> bool __hisnan(CONVLAB_A) { return float(a) != float(a); }
CONVLAB_TWO __hadd2(CONVLAB_A2, CONVLAB_B2) { return a + b; }
CONVLAB_TWO __hsub2(CONVLAB_A2, CONVLAB_B2) { return a - b; }
CONVLAB_TWO __hmul2(CONVLAB_A2, CONVLAB_B2) { return a * b; }
CONVLAB_TWO __hfma2(CONVLAB_A2, CONVLAB_B2, CONVLAB_C2) { return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; }
CONVLAB_TWO __hmax2(CONVLAB_A2, CONVLAB_B2) { return {__hmax(a.x, b.x), __hmax(a.y, b.y)}; }
CONVLAB_ONE __low2half(CONVLAB_A2) { return a.x; }
CONVLAB_ONE __high2half(CONVLAB_A2) { return a.y; }
#undef CONVLAB_ONE
#undef CONVLAB_TWO
#undef CONVLAB_A
#undef CONVLAB_B
#undef CONVLAB_C
#undef CONVLAB_A2
#undef CONVLAB_B2
#undef CONVLAB_C2
