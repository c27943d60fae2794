// What a block does with a convolution's outputs: an activation, then max pooling by windows that lie side by side.
//
//   y[n, k, p, q] = max over r < R, s < S of activated(x[n, k, p R + r, q S + s])
//
// A byte a window says which element won, r S + s, and whether the gradient passes its activation. Torch-free, for host
// and device.
#pragma once
#include "geometry/pool2d.h"

namespace convlab {

enum class Activation { none, relu, leaky_relu, relu6 };

struct Ending {
  Activation activation;
  int R, S;  // the window; 1 x 1: no pooling
  double slope;

  CONVLAB_HD constexpr bool pools() const { return R * S > 1; }
};

constexpr int kPasses = 128;  // the bit of a winner that the gradient passes as it is
constexpr int kMostTaps = 128;  // so many fit the others

// Whether what it holds back becomes a constant: of its outputs 0, or 6 above, and of gradients 0
CONVLAB_HD constexpr bool clips(Activation activation) {
  return activation == Activation::relu || activation == Activation::relu6;
}

// As leaky_relu, relu and relu6 make them: the latter two keep NaN
template <class A> CONVLAB_HD inline A activated(Activation activation, A slope, A v) {
  if (clips(activation)) return v <= A(0) ? A(0) : activation == Activation::relu6 && v >= A(6) ? A(6) : v;
  return activation == Activation::none || v > A(0) ? v : v * slope;
}
template <class A> CONVLAB_HD inline bool passes(Activation activation, A v) {
  if (clips(activation)) return !(v <= A(0)) && !(activation == Activation::relu6 && v >= A(6));
  return activation == Activation::none || v > A(0);
}
// What an activation makes of the gradient dy where it does not pass
template <class A> CONVLAB_HD inline A held_back(Activation activation, A slope, A dy) {
  return clips(activation) ? A(0) : dy * slope;
}

}  // namespace convlab
