// The gradient of the bias: dy [N, K, P, Q] summed over all but K. An image's terms are added up before they join the
// sum, so that its error grows with the root of the images, not of all terms. Bound by reading dy.
#include "cpu/conv2d/filters.h"
#include "cpu/simd/vec.h"

namespace convlab::CONVLAB_ISA {

constexpr int kRunning = 4;  // sums at a time, so that additions need not wait for one another

// `plane` elements, each a vector of `lanes` that lies `step` after the one before
template <class A, class T> CONVLAB_INLINE Vec<A> sum_of(const T* from, int64_t plane, int64_t step, int lanes) {
  Vec<A> sums[kRunning] = {};
  int64_t i = 0;
  for (; i + kRunning <= plane; i += kRunning)
#pragma GCC unroll 4
    for (int j = 0; j < kRunning; j++) sums[j] += load_some<A>(from + (i + j) * step, lanes);
  for (; i < plane; i++) sums[0] += load_some<A>(from + i * step, lanes);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// The pieces [begin, end): vectors of channels where channels lie innermost, channels where they do not
template <class T>
void bias_grad(int images, int64_t plane, const Strides& strides, int channels, const T* dy, T* db, int64_t begin,
               int64_t end) {
  using A = acc_t<T>;
  constexpr int L = kLanes<A>;
  for (int64_t piece = begin; piece < end; piece++) {
    Vec<A> sum = {};
    if (strides.c == 1) {
      const int lanes = channels - piece * L < L ? int(channels - piece * L) : L;
      for (int n = 0; n < images; n++) sum += sum_of<A>(dy + n * strides.n + piece * L, plane, strides.w, lanes);
      store_some<A>(db + piece * L, sum, lanes);
    } else {
      for (int n = 0; n < images; n++) {
        const T* from = dy + n * strides.n + piece * strides.c;
        sum += sum_of<A>(from, plane / L, L, L);
        if (plane % L) sum += load_some<A>(from + plane / L * L, int(plane % L));
      }
      A total = 0;
      for (int l = 0; l < L; l++) total += sum[l];
      db[piece] = T(total);
    }
  }
}

}  // namespace convlab::CONVLAB_ISA

CONVLAB_DEFINE(bias_grad, bias_grad)
