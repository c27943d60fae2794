// PReLU: y = x > 0 ? x : x w, where w is of x's channel, and the gradients to x and to w.
#include "cpu/activations/prelu.h"
#include "cpu/channel_rows.h"

namespace convlab::CONVLAB_ISA {

template <bool kKeep, class T>
void scale_rows(const ByChannel& g, const T* t, const T* x, const T* w, T* out, int64_t begin, int64_t end) {
  using A = acc_t<T>;
  using V = Vec<A>;
  const bool side_by_side = g.inner == 1;
  const int64_t length = g.row();
  for (int64_t row = begin; row < end; row++) {
    const int64_t first = row * length;
    over_row<A>(
        side_by_side, side_by_side ? 0 : row % g.channels, length,
        [&](const OfChannels<A>& of) __attribute__((always_inline)) { return of(w); },
        [&](int64_t i, V slopes, int lanes) __attribute__((always_inline)) {
          const V value = load_some<A>(t + first + i, lanes), at = load_some<A>(x + first + i, lanes);
          store_some<A>(out + first + i, at > 0 ? (kKeep ? value : V{}) : value * slopes, lanes);
        });
  }
}

template <class T>
void prelu_scale(const ByChannel& g, bool keep, const T* t, const T* x, const T* w, T* out, int64_t begin,
                 int64_t end) {
  if (keep) scale_rows<true>(g, t, x, w, out, begin, end);
  else scale_rows<false>(g, t, x, w, out, begin, end);
}

// Adds up `count` terms, `step` elements apart, in float for a while, then in double
template <class T>
CONVLAB_INLINE void add_terms(const T* dy, const T* t, const T* x, int64_t count, int64_t step, int lanes,
                              double (&total)[kLanes<acc_t<T>>]) {
  using A = acc_t<T>;
  for (int64_t done = 0; done < count;) {
    const int64_t until = count - done < kChunk ? count : done + kChunk;
    Vec<A> sums[2] = {};
    const auto term = [&](int64_t i) __attribute__((always_inline)) {
      const Vec<A> product = load_some<A>(dy + i * step, lanes) * load_some<A>(t + i * step, lanes);
      return load_some<A>(x + i * step, lanes) > 0 ? Vec<A>{} : product;
    };
    for (; done + 2 <= until; done += 2) sums[0] += term(done), sums[1] += term(done + 1);
    if (done < until) sums[0] += term(done++);
    const Vec<A> sum = sums[0] + sums[1];
    for (int l = 0; l < lanes; l++) total[l] += double(sum[l]);
  }
}

template <class T>
void prelu_wgrad(const ByChannel& g, int64_t slices, const T* dy, const T* t, const T* x, double* parts, int64_t begin,
                 int64_t end) {
  using A = acc_t<T>;
  constexpr int L = kLanes<A>;
  for (int64_t slice = begin; slice < end; slice++) {
    double* const part = parts + slice * g.channels;
    if (g.inner == 1) {
      const int64_t first = slice * g.outer / slices, last = (slice + 1) * g.outer / slices;
      for (int64_t c = 0; c < g.channels; c += L) {
        const int lanes = g.channels - c < L ? int(g.channels - c) : L;
        const int64_t at = first * g.channels + c;
        double total[L] = {};
        add_terms<T>(dy + at, t + at, x + at, last - first, g.channels, lanes, total);
        for (int l = 0; l < lanes; l++) part[c + l] = total[l];
      }
      continue;
    }
    const int64_t all = g.outer * g.inner, first = slice * all / slices, last = (slice + 1) * all / slices;
    for (int64_t c = 0; c < g.channels; c++) {
      double total[L] = {};
      for (int64_t i = first; i < last;) {  // in pieces of rows
        const int64_t n = i / g.inner, within = i % g.inner;
        const int64_t count = g.inner - within < last - i ? g.inner - within : last - i;
        const int64_t at = (n * g.channels + c) * g.inner + within, whole = count / L * L;
        add_terms<T>(dy + at, t + at, x + at, count / L, L, L, total);
        if (whole < count)
          add_terms<T>(dy + at + whole, t + at + whole, x + at + whole, 1, L, int(count - whole), total);
        i += count;
      }
      double sum = 0;
      for (int l = 0; l < L; l++) sum += total[l];
      part[c] = sum;
    }
  }
}

template <class T> void prelu_add_slices(int64_t channels, int64_t slices, const double* parts, T* dw) {
  for (int64_t c = 0; c < channels; c++) {
    double sum = 0;
    for (int64_t slice = 0; slice < slices; slice++) sum += parts[slice * channels + c];
    dw[c] = T(acc_t<T>(sum));
  }
}

}  // namespace convlab::CONVLAB_ISA

CONVLAB_DEFINE(prelu_scale, prelu_scale)
CONVLAB_DEFINE(prelu_wgrad, prelu_wgrad)
CONVLAB_DEFINE(prelu_add_slices, prelu_add_slices)
