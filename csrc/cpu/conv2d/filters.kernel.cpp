// Packing and unpacking weights.
#include "cpu/conv2d/filters.h"
#include "cpu/conv2d/packed_weights.h"

namespace convlab::CONVLAB_ISA {

template <class T> void pack_bias(const T* bias, int64_t groups, int64_t width, int64_t padded, acc_t<T>* packed) {
  for (int64_t group = 0; group < groups; group++)
    for (int64_t i = 0; i < padded; i++)
      *packed++ = bias && i < width ? acc_t<T>(bias[group * width + i]) : acc_t<T>(0);
}

template <class T> void add_slices(const Filters& f, const acc_t<T>* sums, int slices, const acc_t<T>* bias, T* w) {
  const int taps = f.R * f.S;
  const int64_t count = int64_t(f.groups) * f.width * f.depth * taps;
  for (int group = 0; group < f.groups; group++)
    for (int lane = 0; lane < f.width; lane++)
      for (int d = 0; d < f.depth; d++)
        for (int tap = 0; tap < taps; tap++, sums++) {
          acc_t<T> sum = bias ? bias[d] : 0;
          for (int slice = 0; slice < slices; slice++) sum += sums[slice * count];
          w[group * f.group + lane * f.lane + d * f.depth_stride + tap * f.tap] = T(sum);
        }
}

}  // namespace convlab::CONVLAB_ISA

CONVLAB_DEFINE(pack_weights, pack_weights)
CONVLAB_DEFINE(unpack_weights, unpack_weights)
CONVLAB_DEFINE(pack_bias, pack_bias)
CONVLAB_DEFINE(add_slices, add_slices)
