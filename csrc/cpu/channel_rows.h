// Rows of elements that belong to channels, as ByChannel has them, in vectors: an element of each channel, or all of one.
#pragma once
#include "cpu/simd/vec.h"
#include "geometry/by_channel.h"

namespace convlab::CONVLAB_ISA {

// What belongs to the channels of a vector: of each lane its own, side by side from `channel` on, or of all lanes one
template <class A> struct OfChannels {
  bool side_by_side;
  int64_t channel;
  int lanes;
  template <class T> CONVLAB_INLINE Vec<A> operator()(const T* values) const {
    return side_by_side ? load_some<A>(values + channel, lanes) : broadcast(A(values[channel]));
  }
};

// f(i, of(OfChannels), lanes) for the vectors of a row of `length` elements of `channel`, or of the channels from there on
template <class A, class Of, class F>
CONVLAB_INLINE void over_row(bool side_by_side, int64_t channel, int64_t length, const Of& of, const F& f) {
  constexpr int L = kLanes<A>;
  int64_t i = 0;
  if (side_by_side) {
#pragma GCC unroll 4
    for (; i + L <= length; i += L) f(i, of(OfChannels<A>{true, channel + i, L}), L);
    if (const int lanes = int(length - i)) f(i, of(OfChannels<A>{true, channel + i, lanes}), lanes);
  } else {
    const auto one = of(OfChannels<A>{false, channel, L});
#pragma GCC unroll 4
    for (; i + L <= length; i += L) f(i, one, L);
    if (const int lanes = int(length - i)) f(i, one, lanes);
  }
}

}  // namespace convlab::CONVLAB_ISA
