// Convolution on the CPU, direct: one plane of the output at a time, and inside it whole rows.
//
// What it does    forward and dgrad add one tap's contribution to a plane of sums, row by row: a multiply-add over contiguous
//                 floats that the compiler vectorises, with the edges cut off outside the loop instead of tested in it. wgrad
//                 takes dot products of the same rows. Planes are independent, so threads share nothing and every sum has
//                 one order: the same bits for any number of threads.
// Against `reference`  no test and no index arithmetic per multiply-add, vector registers, all cores.
// What bounds it  loads and stores: every multiply-add reads and writes its sum. Short rows (LeNet C5: one output) pay
//                 for their loop more than for their arithmetic.
// What is next    sums that stay in registers over many taps, from packed panels that stay in the caches.
//
// Torch-free: each function makes the planes [begin, end), and the caller spreads them over threads.
#pragma once
#include <vector>

#include "../dtype.h"
#include "../geometry/conv2d.h"
#include "../geometry/ranges.h"

namespace convlab::direct {

// Partial sums of a dot product: as many as fill two AVX-512 registers, so that additions need not wait for each other.
constexpr int kLanes = 32;

// sums[i] += weight * x[i * stride], i < n
template <class T> inline void add_scaled_row(acc_t<T>* sums, const T* x, acc_t<T> weight, int n, int stride) {
  if (stride == 1)
    for (int i = 0; i < n; i++) sums[i] += weight * acc_t<T>(x[i]);
  else
    for (int i = 0; i < n; i++) sums[i] += weight * acc_t<T>(x[(int64_t)i * stride]);
}

// sums[i * stride] += weight * dy[i], i < n
template <class T> inline void scatter_scaled_row(acc_t<T>* sums, const T* dy, acc_t<T> weight, int n, int stride) {
  if (stride == 1)
    for (int i = 0; i < n; i++) sums[i] += weight * acc_t<T>(dy[i]);
  else
    for (int i = 0; i < n; i++) sums[(int64_t)i * stride] += weight * acc_t<T>(dy[i]);
}

// lanes[i % kLanes] += a(i) * b(i), i < n
template <class A, class FA, class FB> inline void multiply_into(A* lanes, int n, FA a, FB b) {
  int i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int l = 0; l < kLanes; l++) lanes[l] += a(i + l) * b(i + l);
  for (int l = 0; i + l < n; l++) lanes[l] += a(i + l) * b(i + l);
}

template <class A> inline A total(const A* lanes) {
  A part[kLanes];
  std::copy(lanes, lanes + kLanes, part);
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int l = 0; l < half; l++) part[l] += part[l + half];
  return part[0];
}

// The planes (n, k) of y [N, K, P, Q] from x [N, C, H, W], w [K, C/groups, R, S] and bias [K] or null
template <class T> void forward(const Conv2d& g, const T* x, const T* w, const T* bias, T* y, int64_t begin, int64_t end) {
  const int64_t x_plane = (int64_t)g.H * g.W, y_plane = (int64_t)g.P * g.Q, taps = (int64_t)g.R * g.S;
  std::vector<acc_t<T>> sums(y_plane);
  for (int64_t plane = begin; plane < end; plane++) {
    const int64_t n = plane / g.K, k = plane % g.K;
    std::fill(sums.begin(), sums.end(), bias ? acc_t<T>(bias[k]) : acc_t<T>(0));
    for (int c = 0; c < g.Cg(); c++) {
      const T* xc = x + (n * g.C + k / g.Kg() * g.Cg() + c) * x_plane;
      const T* wc = w + (k * g.Cg() + c) * taps;
      for (int r = 0; r < g.R; r++) {
        const Range rows = outputs_inside(g.P, g.H, g.stride_h, r * g.dilation_h - g.pad_h);
        for (int s = 0; s < g.S; s++) {
          const int shift = s * g.dilation_w - g.pad_w;
          const Range columns = outputs_inside(g.Q, g.W, g.stride_w, shift);
          const acc_t<T> weight(wc[r * g.S + s]);
          if (columns.begin == columns.end) continue;
          for (int p = rows.begin; p < rows.end; p++)
            add_scaled_row<T>(sums.data() + p * g.Q + columns.begin,
                              xc + (p * g.stride_h - g.pad_h + r * g.dilation_h) * g.W + columns.begin * g.stride_w + shift, weight,
                              columns.end - columns.begin, g.stride_w);
        }
      }
    }
    std::transform(sums.begin(), sums.end(), y + plane * y_plane, [](acc_t<T> sum) { return T(sum); });
  }
}

// The planes (n, c) of dx [N, C, H, W] from dy [N, K, P, Q] and w [K, C/groups, R, S]
template <class T> void dgrad(const Conv2d& g, const T* dy, const T* w, T* dx, int64_t begin, int64_t end) {
  const int64_t x_plane = (int64_t)g.H * g.W, y_plane = (int64_t)g.P * g.Q, taps = (int64_t)g.R * g.S;
  std::vector<acc_t<T>> sums(x_plane);
  for (int64_t plane = begin; plane < end; plane++) {
    const int64_t n = plane / g.C, c = plane % g.C, group = c / g.Cg();
    std::fill(sums.begin(), sums.end(), acc_t<T>(0));
    for (int64_t k = group * g.Kg(); k < (group + 1) * g.Kg(); k++) {
      const T* dyk = dy + (n * g.K + k) * y_plane;
      const T* wk = w + (k * g.Cg() + c % g.Cg()) * taps;
      for (int r = 0; r < g.R; r++) {
        const Range rows = outputs_inside(g.P, g.H, g.stride_h, r * g.dilation_h - g.pad_h);
        for (int s = 0; s < g.S; s++) {
          const int shift = s * g.dilation_w - g.pad_w;
          const Range columns = outputs_inside(g.Q, g.W, g.stride_w, shift);
          const acc_t<T> weight(wk[r * g.S + s]);
          if (columns.begin == columns.end) continue;
          for (int p = rows.begin; p < rows.end; p++)
            scatter_scaled_row<T>(sums.data() + (p * g.stride_h - g.pad_h + r * g.dilation_h) * g.W + columns.begin * g.stride_w + shift,
                                  dyk + p * g.Q + columns.begin, weight, columns.end - columns.begin, g.stride_w);
        }
      }
    }
    std::transform(sums.begin(), sums.end(), dx + plane * x_plane, [](acc_t<T> sum) { return T(sum); });
  }
}

// The filters (k, c) of dw [K, C/groups, R, S] from dy [N, K, P, Q] and x [N, C, H, W]
template <class T> void wgrad(const Conv2d& g, const T* dy, const T* x, T* dw, int64_t begin, int64_t end) {
  using A = acc_t<T>;
  const int64_t x_plane = (int64_t)g.H * g.W, y_plane = (int64_t)g.P * g.Q, taps = (int64_t)g.R * g.S;
  std::vector<A> sums(taps);
  for (int64_t filter = begin; filter < end; filter++) {
    const int64_t k = filter / g.Cg(), c = k / g.Kg() * g.Cg() + filter % g.Cg();
    std::fill(sums.begin(), sums.end(), A(0));
    for (int64_t n = 0; n < g.N; n++) {  // both planes stay in the first cache for all their taps
      const T* dyk = dy + (n * g.K + k) * y_plane;
      const T* xc = x + (n * g.C + c) * x_plane;
      for (int r = 0; r < g.R; r++) {
        const Range rows = outputs_inside(g.P, g.H, g.stride_h, r * g.dilation_h - g.pad_h);
        for (int s = 0; s < g.S; s++) {
          const int shift = s * g.dilation_w - g.pad_w;
          const Range columns = outputs_inside(g.Q, g.W, g.stride_w, shift);
          A lanes[kLanes] = {};
          for (int p = rows.begin; p < rows.end; p++) {
            const T* a = dyk + p * g.Q;
            const T* b = xc + (p * g.stride_h - g.pad_h + r * g.dilation_h) * g.W;
            const int q0 = columns.begin, v0 = q0 * g.stride_w + shift;
            if (g.stride_w == 1)
              multiply_into(lanes, columns.end - q0, [&](int i) { return A(a[q0 + i]); }, [&](int i) { return A(b[v0 + i]); });
            else
              multiply_into(lanes, columns.end - q0, [&](int i) { return A(a[q0 + i]); }, [&](int i) { return A(b[v0 + i * g.stride_w]); });
          }
          sums[r * g.S + s] += total(lanes);
        }
      }
    }
    std::transform(sums.begin(), sums.end(), dw + filter * taps, [](A sum) { return T(sum); });
  }
}

// The elements k of db [K] from dy [N, K, P, Q]
template <class T> void bias_grad(const Conv2d& g, const T* dy, T* db, int64_t begin, int64_t end) {
  using A = acc_t<T>;
  const int plane = g.P * g.Q;
  for (int64_t k = begin; k < end; k++) {
    A sum = 0;
    for (int64_t n = 0; n < g.N; n++) {
      const T* dyk = dy + (n * g.K + k) * plane;
      A lanes[kLanes] = {};
      multiply_into(lanes, plane, [&](int i) { return A(dyk[i]); }, [](int) { return A(1); });
      sum += total(lanes);
    }
    db[k] = T(sum);
  }
}

}  // namespace convlab::direct
