// Batch normalization by statistics that are known, and an activation, in one pass over memory, which bounds it.
#include "cpu/norm/batch_norm.h"

#include "cpu/conv2d/block/ending.h"

namespace convlab::CONVLAB_ISA {

template <Activation activation, class T>
[[gnu::noinline]] void normalize_rows(const Normalization& n, const acc_t<T>* scale, const acc_t<T>* shift, const T* x,
                                      T* y, int64_t begin, int64_t end) {
  using A = acc_t<T>;
  using V = Vec<A>;
  constexpr int L = kLanes<A>;
  const A slope = A(n.slope);
  const int64_t length = n.g.row();
  const bool apart = n.g.inner == 1;
  for (int64_t row = begin; row < end; row++) {
    const int64_t c = apart ? 0 : row % n.g.channels, of_y = apart ? row : row / n.g.channels * n.y_channels + c;
    const V of_row = broadcast(scale[c]), plus_of_row = broadcast(shift ? shift[c] : A(0));
    const T* const from = x + row * (apart ? n.x_channels : length);
    T* const to = y + of_y * (apart ? n.y_channels : length);
    const auto vector = [&](int64_t i, int lanes) __attribute__((always_inline)) {
      const V by = apart ? load_some<A>(scale + i, lanes) : of_row;
      const V plus = apart && shift ? load_some<A>(shift + i, lanes) : plus_of_row;
      const V made = rounded<T, A>(load_some<A>(from + i, lanes) * by + plus);
      store_some<A>(to + i, activated_as<activation, T>(made, slope), lanes);
    };
    int64_t i = 0;
    for (; i + L <= length; i += L) vector(i, L);
    if (i < length) vector(i, int(length - i));
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
