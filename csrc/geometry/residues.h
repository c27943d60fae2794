// The gradient to a convolution's input, one dimension of it, without the zeros that a stride puts between the outputs.
//
// Output p reads input h = p stride - pad + r dilation. So the inputs h fall into `stride` classes by (h + pad) %
// stride, and a class meets only the taps r with the same r dilation % stride. Inside a class everything is dense: with
// its i-th tap
//
//   h = first + u stride, u < places     r = tap0 + i tap_every, i < taps     p = u + output0 - i output_every
//
// A class may have no positions, or no taps: then the gradient is zero there. Each tap belongs to one class.
// Torch-free.
#pragma once
#include "geometry/conv2d.h"

namespace convlab {

struct Residue {
  int first, places, tap0, tap_every, taps, output0, output_every;
};

// Stride: int, or a Divisor
template <class Stride>
CONVLAB_HD inline Residue residue_class(int residue, int size, int kernel, Stride stride, int pad, int dilation) {
  Residue c{};
  c.first = (residue + stride - pad % stride) % stride;
  c.places = c.first < size ? (size - 1 - c.first) / stride + 1 : 0;
  while (c.tap0 < kernel && c.tap0 * dilation % stride != residue) c.tap0++;
  if (c.tap0 == kernel) return c;
  c.tap_every = 1;
  while (c.tap0 + c.tap_every < kernel && c.tap_every * dilation % stride != 0) c.tap_every++;
  c.taps = (kernel - 1 - c.tap0) / c.tap_every + 1;
  c.output0 = (c.first + pad) / stride - c.tap0 * dilation / stride;  // of the same remainders
  c.output_every = c.tap_every * dilation / stride;  // exact, if there is a second tap
  return c;
}

// How many classes have to be looked at for taps, of `stride`: without dilation, the first ones have the taps, one or
// more each.
CONVLAB_HD inline int classes_with_taps(int kernel, int stride, int dilation) {
  return dilation == 1 && kernel < stride ? kernel : stride;
}

// Of both dimensions together.
CONVLAB_HD inline int classes_of(const Conv2d& g) {
  return classes_with_taps(g.R, g.stride_h, g.dilation_h) * classes_with_taps(g.S, g.stride_w, g.dilation_w);
}

// ---- classes side by side ----
//
// Without dilation, and where every class has the same positions, one dimension of all classes together is dense, too:
// input u stride + c, for all classes c < stride, meets the outputs u + origin - i, i < taps, by the taps
// c + pad - (origin - i) stride of the kernel, where there are such.
struct JoinedClasses {
  int origin, taps;
  int tap0;  // of class 0 and i = 0: then the kernel's tap is tap0 + c + i stride, and may be outside
};

CONVLAB_HD inline JoinedClasses joined_classes(int kernel, int stride, int pad) {
  const int origin = (stride - 1 + pad) / stride, last = pad - kernel + 1;  // of outputs times stride
  const int least = last >= 0 ? (last + stride - 1) / stride : -(-last / stride);
  return {origin, origin - least + 1, pad - origin * stride};
}

inline bool can_join_classes(const Conv2d& g) {
  return g.dilation_h == 1 && g.dilation_w == 1 && g.H % g.stride_h == 0 && g.W % g.stride_w == 0 &&
         g.R >= g.stride_h && g.S >= g.stride_w;
}

inline long long joined_taps(const Conv2d& g) {
  return (long long)joined_classes(g.R, g.stride_h, g.pad_h).taps * joined_classes(g.S, g.stride_w, g.pad_w).taps;
}

}  // namespace convlab
