// Packing and unpacking weights.
#include "cpu/conv2d/filters.h"
#include "cpu/conv2d/packed_weights.h"

namespace convlab::CONVLAB_ISA {

template <class T> void pack_bias(const T* bias, int64_t groups, int64_t width, int64_t padded, acc_t<T>* packed) {
  for (int64_t group = 0; group < groups; group++)
    for (int64_t i = 0; i < padded; i++)
      *packed++ = bias && i < width ? acc_t<T>(bias[group * width + i]) : acc_t<T>(0);
}

template <class T> void add_slices(const acc_t<T>* sums, int slices, int64_t count, T* to) {
  for (int64_t i = 0; i < count; i++) {
    acc_t<T> sum = 0;
    for (int s = 0; s < slices; s++) sum += sums[s * count + i];
    to[i] = T(sum);
  }
}

}  // namespace convlab::CONVLAB_ISA

CONVLAB_DEFINE(pack_weights, pack_weights)
CONVLAB_DEFINE(unpack_weights, unpack_weights)
CONVLAB_DEFINE(pack_bias, pack_bias)
CONVLAB_DEFINE(add_slices, add_slices)
