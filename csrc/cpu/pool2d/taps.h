// The taps of windows.
#pragma once
#include "cpu/pool2d/lines.h"

namespace convlab::CONVLAB_ISA {

// The taps of output p that lie inside x, in one dimension. Where the window lies behind x there is none, but there is
// a first.
struct Inside {
  int begin, end;
};

CONVLAB_INLINE Inside inside(const Axis& a, int p) {
  const int start = p * a.stride - a.pad;
  if (start >= 0 && start + (a.kernel - 1) * a.dilation < a.size) return {0, a.kernel};
  const int begin = start < 0 ? (-start + a.dilation - 1) / a.dilation : 0;
  return {begin, start < a.size ? larger(begin, smaller(a.kernel, (a.size - 1 - start) / a.dilation + 1)) : begin};
}

// How many outputs from p on have all of their taps inside x; at least 1
CONVLAB_INLINE int whole_windows(const Axis& a, int p, int end) {
  if (p * a.stride < a.pad) return 1;
  return larger(1, smaller(end, (a.size - 1 - (a.kernel - 1) * a.dilation + a.pad + a.stride) / a.stride) - p);
}

// i, or where a vector from there on would pass n, the begin of the last that does not; 0 where there is none
template <class A> CONVLAB_INLINE int64_t within(int64_t i, int64_t n) {
  return i + kLanes<A> <= n ? i : n > kLanes<A> ? n - kLanes<A> : 0;
}

template <class A, class T> [[gnu::noinline, gnu::cold]] void store_few(T* to, Vec<A> v, int count) {
  store_some<A>(to, v, count);
}

// A vector of which `wanted` elements count; whole where there is room up to `end`
template <class A, class T> CONVLAB_INLINE void store_within(T* to, Vec<A> v, int64_t wanted, const T* end) {
  if (wanted >= kLanes<A> || end - to >= kLanes<A>) [[likely]]
    store_as<A>(to, v);
  else if (wanted > 0) store_few<A>(to, v, int(wanted));
}

}  // namespace convlab::CONVLAB_ISA
