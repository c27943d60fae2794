// The gradient of the bias: dy [N, K, P, Q] summed over all but K. An image's terms, or a slice's, are added up before they
// join the sum, so that its error grows with the root of their number, not of all terms'. Bound by reading dy. Pixels that
// have their channels side by side are rows, a few of which are read at a time, in the order of memory; rows of several
// pixels where that makes them whole vectors.
#include "cpu/conv2d/bias_grad.h"

#include "cpu/simd/vec.h"

namespace convlab::CONVLAB_ISA {

constexpr int kRunning = 4;  // sums at a time, so that additions need not wait for one another
constexpr int kTogether = 8;  // rows

// `count` elements
template <class A, class T> CONVLAB_INLINE Vec<A> sum_of(const T* from, int64_t count) {
  constexpr int L = kLanes<A>;
  Vec<A> sums[kRunning] = {};
  int64_t i = 0;
  for (; i + kRunning * L <= count; i += kRunning * L)
#pragma GCC unroll 4
    for (int j = 0; j < kRunning; j++) sums[j] += load_as<A>(from + i + j * L);
  for (; i < count; i += L) sums[0] += load_some<A>(from + i, count - i < L ? int(count - i) : L);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

template <class T>
void sum_planes(int images, int64_t plane, const Strides& strides, const T* dy, T* db, int64_t begin, int64_t end) {
  using A = acc_t<T>;
  for (int64_t k = begin; k < end; k++) {
    Vec<A> sum = {};
    for (int n = 0; n < images; n++) sum += sum_of<A>(dy + n * strides.n + k * strides.c, plane);
    A total = 0;
    for (int l = 0; l < kLanes<A>; l++) total += sum[l];
    db[k] = T(total);
  }
}

// from [elements], in rows of `columns` of which the last may have fewer -> to [columns]: sums over the rows
template <class A, class T> void sum_rows(const T* from, int64_t elements, int64_t columns, A* to) {
  constexpr int L = kLanes<A>;
  std::fill_n(to, columns, A(0));
  const auto add = [&](auto rows, int64_t count) __attribute__((always_inline)) {
    for (int64_t k = 0; k < count; k += L) {
      const int lanes = count - k < L ? int(count - k) : L;
      Vec<A> parts[rows];
#pragma GCC unroll 8
      for (int j = 0; j < rows; j++) parts[j] = load_some<A>(from + j * columns + k, lanes);
#pragma GCC unroll 4
      for (int half = rows / 2; half > 0; half /= 2)
#pragma GCC unroll 8
        for (int j = 0; j < half; j++) parts[j] += parts[j + half];
      store_some<A>(to + k, load_some<A>(to + k, lanes) + parts[0], lanes);
    }
    from += rows * columns, elements -= rows * columns;
  };
  while (elements >= kTogether * columns) add(std::integral_constant<int, kTogether>(), columns);
  while (elements > 0) add(std::integral_constant<int, 1>(), elements < columns ? elements : columns);
}

template <class T>
void sum_slices(int64_t elements, int64_t slice, int64_t columns, const T* dy, acc_t<T>* sums, int64_t begin,
                int64_t end) {
  for (int64_t i = begin; i < end; i++) {
    const int64_t rest = elements - i * slice;
    sum_rows(dy + i * slice, rest < slice ? rest : slice, columns, sums + i * columns);
  }
}

template <class T> void add_sums(const acc_t<T>* sums, int64_t rows, int channels, acc_t<T>* total, T* db) {
  sum_rows(sums, rows * channels, channels, total);
  for (int k = 0; k < channels; k++) db[k] = T(total[k]);
}

}  // namespace convlab::CONVLAB_ISA

CONVLAB_DEFINE(sum_planes, sum_planes)
CONVLAB_DEFINE(sum_slices, sum_slices)
CONVLAB_DEFINE(add_sums, add_sums)
