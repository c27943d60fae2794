// Poolings element by element: for windows so large that lines (pooling.h) of their phases would not stay in a cache, or that most
// of the work of gathering a gradient would be in vain. Planes are [H, W, inner].
#pragma once
#include <limits>
#include <vector>

#include "../dtype.h"
#include "../geometry/avg_pool2d.h"
#include "parallel.h"

namespace convlab::pooling::plain {

// A channel of a plane
struct Layer {
  int64_t plane, channel, inner;
  int64_t at(int64_t places, int64_t place) const { return (plane * places + place) * inner + channel; }
};

// Calls f for all layers, from several threads, each with a copy of its own
template <class F> void over_layers(const Pool2d& g, int64_t inner, const F& f) {
  parallel_over(g.planes, int64_t(g.P) * g.Q * g.R * g.S, [&](int64_t begin, int64_t end) {
    F mine = f;
    for (int64_t i = begin; i < end; i++) mine(Layer{i / inner, i % inner, inner});
  });
}

// x -> y, offsets or null
template <class T, class Offset> void max_forward(const Pool2d& g, const T* x, T* y, Offset* offsets, const Layer& l) {
  for (int p = 0; p < g.P; p++)
    for (int q = 0; q < g.Q; q++) {
      const int h0 = p * g.stride_h - g.pad_h, w0 = q * g.stride_w - g.pad_w;
      const Range rows = places_inside(g.R, g.H, g.dilation_h, h0), columns = places_inside(g.S, g.W, g.dilation_w, w0);
      acc_t<T> best = -std::numeric_limits<acc_t<T>>::infinity();
      int winner = rows.begin * g.S + columns.begin;  // also of a window of nothing but -inf
      for (int r = rows.begin; r < rows.end; r++)
        for (int s = columns.begin; s < columns.end; s++) {
          const acc_t<T> value(x[l.at(int64_t(g.H) * g.W, int64_t(h0 + r * g.dilation_h) * g.W + w0 + s * g.dilation_w)]);
          if (value > best || value != value) best = value, winner = r * g.S + s;
        }
      const int64_t out = l.at(int64_t(g.P) * g.Q, int64_t(p) * g.Q + q);
      y[out] = T(best);
      if (offsets) offsets[out] = Offset(winner);
    }
}

// x -> y
template <class T> void average_forward(const AvgPool2d& a, const T* x, T* y, const Layer& l) {
  const Pool2d& g = a.window;
  for (int p = 0; p < g.P; p++) {
    const Range rows = covered_by(p, g.stride_h, g.pad_h, g.R, g.H);
    for (int q = 0; q < g.Q; q++) {
      const Range columns = covered_by(q, g.stride_w, g.pad_w, g.S, g.W);
      acc_t<T> sum = 0;
      for (int h = rows.begin; h < rows.end; h++)
        for (int w = columns.begin; w < columns.end; w++) sum += acc_t<T>(x[l.at(int64_t(g.H) * g.W, int64_t(h) * g.W + w)]);
      y[l.at(int64_t(g.P) * g.Q, int64_t(p) * g.Q + q)] = T(sum / acc_t<T>(averaged_over(a, p, q)));
    }
  }
}

// What scatter(p, q, element of dy, sums [H, W]) adds up, as dx. `sums` is kept from call to call.
template <class T, class Scatter> void scattered(const Pool2d& g, T* dx, const Layer& l, std::vector<acc_t<T>>& sums, const Scatter& scatter) {
  sums.assign(size_t(g.H) * g.W, acc_t<T>(0));
  for (int p = 0; p < g.P; p++)
    for (int q = 0; q < g.Q; q++) scatter(p, q, l.at(int64_t(g.P) * g.Q, int64_t(p) * g.Q + q), sums.data());
  for (int64_t i = 0; i < int64_t(g.H) * g.W; i++) dx[l.at(int64_t(g.H) * g.W, i)] = T(sums[i]);
}

// dy -> dx
template <class T> void average_backward(const AvgPool2d& a, const T* dy, T* dx, const Layer& l, std::vector<acc_t<T>>& sums) {
  const Pool2d& g = a.window;
  scattered(g, dx, l, sums, [&](int p, int q, int64_t from, acc_t<T>* to) {
    const Range rows = covered_by(p, g.stride_h, g.pad_h, g.R, g.H), columns = covered_by(q, g.stride_w, g.pad_w, g.S, g.W);
    const acc_t<T> share = acc_t<T>(dy[from]) / acc_t<T>(averaged_over(a, p, q));
    for (int h = rows.begin; h < rows.end; h++)
      for (int w = columns.begin; w < columns.end; w++) to[int64_t(h) * g.W + w] += share;
  });
}

}  // namespace convlab::pooling::plain
