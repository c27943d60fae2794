// Poolings element by element: for windows so large that lines (pooling.h) of their phases would not stay in a cache,
// and for gradients where asking all windows that cover an element costs more than adding up what each window gives.
// Tensors are planes of places [H, W] times `inner` channels.
#pragma once
#include <limits>
#include <vector>

#include "cpu/parallel.h"
#include "dtype.h"
#include "geometry/avg_pool2d.h"

namespace convlab::pooling::plain {

constexpr int kChannels = 16;  // of a slab: a cache line of floats

// Some channels of a plane
struct Slab {
  int64_t plane, inner, first;
  int channels;
  // The first of them at a place of a tensor of so many
  int64_t at(int64_t places, int64_t place) const { return (plane * places + place) * inner + first; }
};

// Calls f for all slabs, from several threads, each with a copy of its own
template <class F> void each_slab(const Pool2d& g, int64_t inner, const F& f) {
  const int64_t blocks = (inner + kChannels - 1) / kChannels, planes = g.planes / inner;
  parallel_over(planes * blocks,
                (int64_t(g.P) * g.Q * g.R * g.S + int64_t(g.H) * g.W) * std::min<int64_t>(inner, kChannels),
                [&](int64_t begin, int64_t end) {
                  F mine = f;
                  for (int64_t i = begin; i < end; i++) {
                    const int64_t first = i % blocks * kChannels;
                    mine(Slab{i / blocks, inner, first, int(std::min<int64_t>(kChannels, inner - first))});
                  }
                });
}

// x -> y, offsets or null
template <class T, class Offset>
void max_forward(const Pool2d& g, const T* x, T* y, Offset* offsets, const Slab& slab) {
  for (int p = 0; p < g.P; p++)
    for (int q = 0; q < g.Q; q++) {
      const int h0 = p * g.stride_h - g.pad_h, w0 = q * g.stride_w - g.pad_w;
      const Range rows = places_inside(g.R, g.H, g.dilation_h, h0), columns = places_inside(g.S, g.W, g.dilation_w, w0);
      const int64_t out = slab.at(int64_t(g.P) * g.Q, int64_t(p) * g.Q + q);
      for (int c = 0; c < slab.channels; c++) {
        acc_t<T> best = -std::numeric_limits<acc_t<T>>::infinity();
        int winner = rows.begin * g.S + columns.begin;  // also of a window of nothing but -inf
        for (int r = rows.begin; r < rows.end; r++)
          for (int s = columns.begin; s < columns.end; s++) {
            const acc_t<T> value(
                x[slab.at(int64_t(g.H) * g.W, int64_t(h0 + r * g.dilation_h) * g.W + w0 + s * g.dilation_w) + c]);
            if (value > best || value != value) best = value, winner = r * g.S + s;
          }
        y[out + c] = T(best);
        if (offsets) offsets[out + c] = Offset(winner);
      }
    }
}

// x -> y
template <class T> void average_forward(const AvgPool2d& a, const T* x, T* y, const Slab& slab) {
  const Pool2d& g = a.window;
  for (int p = 0; p < g.P; p++)
    for (int q = 0; q < g.Q; q++) {
      const Range rows = covered_by(p, g.stride_h, g.pad_h, g.R, g.H),
                  columns = covered_by(q, g.stride_w, g.pad_w, g.S, g.W);
      for (int c = 0; c < slab.channels; c++) {
        acc_t<T> sum = 0;
        for (int h = rows.begin; h < rows.end; h++)
          for (int w = columns.begin; w < columns.end; w++)
            sum += acc_t<T>(x[slab.at(int64_t(g.H) * g.W, int64_t(h) * g.W + w) + c]);
        y[slab.at(int64_t(g.P) * g.Q, int64_t(p) * g.Q + q) + c] = T(sum / acc_t<T>(averaged_over(a, p, q)));
      }
    }
}

// The gradient of a slab, as sums: places `step` apart, channels side by side. In dx itself where that holds sums.
template <class T> class Sums {
  static constexpr bool in_place = std::is_same_v<T, acc_t<T>>;

 public:
  Sums(const Pool2d& g, T* dx, const Slab& slab, std::vector<acc_t<T>>& memory)
      : places_(int64_t(g.H) * g.W), step_(step(slab.inner)), slab_(slab), dx_(dx + slab.at(places_, 0)) {
    if constexpr (in_place) sums_ = dx_;
    else memory.resize(size_t(places_ * step_)), sums_ = memory.data();
    if (step_ == slab.channels) std::fill_n(sums_, places_ * step_, acc_t<T>(0));
    else
      for (int64_t i = 0; i < places_; i++)
        for (int c = 0; c < slab.channels; c++) at(i)[c] = 0;
  }
  ~Sums() {
    if constexpr (!in_place)
      for (int64_t i = 0; i < places_; i++)
        for (int c = 0; c < slab_.channels; c++) dx_[i * slab_.inner + c] = T(at(i)[c]);
  }
  acc_t<T>* at(int64_t place) const { return sums_ + place * step_; }
  static int64_t step(int64_t inner) { return in_place ? inner : std::min<int64_t>(inner, kChannels); }

 private:
  const int64_t places_, step_;
  const Slab& slab_;
  T* const dx_;
  acc_t<T>* sums_;
};

// dy -> dx
template <class T>
void average_backward(const AvgPool2d& a, const T* dy, T* dx, const Slab& slab, std::vector<acc_t<T>>& memory) {
  const Pool2d& g = a.window;
  const Sums<T> sums(g, dx, slab, memory);
  for (int p = 0; p < g.P; p++)
    for (int q = 0; q < g.Q; q++) {
      const Range rows = covered_by(p, g.stride_h, g.pad_h, g.R, g.H),
                  columns = covered_by(q, g.stride_w, g.pad_w, g.S, g.W);
      const T* const from = dy + slab.at(int64_t(g.P) * g.Q, int64_t(p) * g.Q + q);
      for (int c = 0; c < slab.channels; c++) {
        const acc_t<T> share = acc_t<T>(from[c]) / acc_t<T>(averaged_over(a, p, q));
        for (int h = rows.begin; h < rows.end; h++)
          for (int w = columns.begin; w < columns.end; w++) sums.at(int64_t(h) * g.W + w)[c] += share;
      }
    }
}

}  // namespace convlab::pooling::plain
