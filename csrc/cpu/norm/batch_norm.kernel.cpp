// Batch normalization by statistics that are known, and an activation, in one pass over memory, which bounds it.
#include "cpu/norm/batch_norm.h"

#include "cpu/channel_rows.h"
#include "cpu/conv2d/block/ending.h"

namespace convlab::CONVLAB_ISA {

template <Activation activation, class T>
[[gnu::noinline]] void normalize_rows(const Normalization& n, const acc_t<T>* scale, const acc_t<T>* shift, const T* x,
                                      T* y, int64_t begin, int64_t end) {
  using A = acc_t<T>;
  using V = Vec<A>;
  struct Terms {
    V scale, shift;
  };
  const A slope = A(n.slope);
  const int64_t length = n.g.row();
  const bool side_by_side = n.g.inner == 1;
  for (int64_t row = begin; row < end; row++) {
    const int64_t c = side_by_side ? 0 : row % n.g.channels;
    const auto at = [&](int64_t channels) {  // in memory
      return side_by_side ? row * channels : (row / n.g.channels * channels + c) * length;
    };
    const T* const from = x + at(n.x_channels);
    T* const to = y + at(n.y_channels);
    over_row<A>(
        side_by_side, c, length,
        [&](const OfChannels<A>& of)
            __attribute__((always_inline)) { return Terms{of(scale), shift ? of(shift) : V{}}; },
        [&](int64_t i, const Terms& t, int lanes) __attribute__((always_inline)) {
          const V made = rounded<T, A>(load_some<A>(from + i, lanes) * t.scale + t.shift);
          store_some<A>(to + i, activated_as<activation, T>(made, slope), lanes);
        });
  }
}

template <class T>
void normalize(const Normalization& n, const acc_t<T>* scale, const acc_t<T>* shift, const T* x, T* y, int64_t begin,
               int64_t end) {
  with_activation(n.activation,
                  [&]<Activation activation>() { normalize_rows<activation>(n, scale, shift, x, y, begin, end); });
}

}  // namespace convlab::CONVLAB_ISA

CONVLAB_DEFINE(normalize, normalize)
