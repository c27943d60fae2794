// Poolings element by element: for windows so large that the lines of their phases would not stay in a cache,
// and for gradients where asking all windows that cover an element costs more than adding up what each window gives.
// Tensors are planes of places [H, W] times `inner` channels.
#pragma once
#include <limits>
#include <vector>

#include "cpu/parallel.h"
#include "dtype.h"
#include "geometry/avg_pool2d.h"
#include "geometry/axis.h"

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

// Where the taps of windows lie
class TapPlaces {
 public:
  explicit TapPlaces(const Pool2d& g)
      : g_(g), taps_(std::max(256, g.R * g.S)), places_(taps_.size()) {  // 256: whatever a byte names is there
    for (int i = 0; i < int(taps_.size()); i++) {
      const int tap = i < g.R * g.S ? i : 0;
      taps_[i] = {int64_t(tap / g.S) * g.dilation_h, int64_t(tap % g.S) * g.dilation_w};
      places_[i] = taps_[i].h * g.W + taps_[i].w;
    }
  }
  // h W + w of the tap of window (p, q) that `offset` names, also outside x
  template <class Offset> int64_t index(int p, int q, Offset offset) const {
    return first(p, q) + places_[known(offset)];
  }

  // The same, but -1 where that is outside: when the whole window lies there, or the offset is nonsense
  template <class Offset> int64_t inside(int p, int q, Offset offset) const {
    const Tap tap = taps_[known(offset)];
    const int64_t h = p * g_.stride_h - g_.pad_h + tap.h, w = q * g_.stride_w - g_.pad_w + tap.w;
    return h >= 0 && h < g_.H && w >= 0 && w < g_.W ? h * g_.W + w : -1;
  }

  // By offset, how far from tap 0 a tap is, of places `step` apart
  std::vector<int64_t> places(int64_t step) const {
    std::vector<int64_t> scaled(places_);
    for (int64_t& place : scaled) place *= step;
    return scaled;
  }

  // Whether every window has a tap inside x
  bool all_reach() const {
    return all_reach({g_.H, g_.P, g_.R, g_.stride_h, g_.pad_h, g_.dilation_h}) &&
           all_reach({g_.W, g_.Q, g_.S, g_.stride_w, g_.pad_w, g_.dilation_w});
  }

  // Offsets are the caller's data: what is none of the window's counts as the first
  size_t known(uint8_t offset) const { return offset; }
  size_t known(int32_t offset) const { return size_t(offset) < taps_.size() ? size_t(offset) : 0; }
  // Of tap 0
  int64_t first(int p, int q) const {
    return (p * int64_t(g_.stride_h) - g_.pad_h) * g_.W + q * int64_t(g_.stride_w) - g_.pad_w;
  }

 private:
  struct Tap {
    int64_t h, w;
  };
  static bool all_reach(const Axis& a) {
    for (int p = 0; p < a.outputs; p++) {
      const Range inside = places_inside(a.kernel, a.size, a.dilation, p * a.stride - a.pad);
      if (inside.begin == inside.end) return false;
    }
    return true;
  }

  const Pool2d& g_;
  std::vector<Tap> taps_;
  std::vector<int64_t> places_;
};

// A row of `count` outputs of some channels, `inner` apart in dy. sums of the first output's tap 0 begin at `first`, of
// `all`, those of the next `stride` further, and those of its other taps where `places` says.
template <int channels, class T, class Offset>
void scatter_row(const TapPlaces& taps, const int64_t* places, int64_t first, int64_t all, int64_t stride, int count,
                 const T* dy, const Offset* offsets, int64_t inner, int some_channels, acc_t<T>* sums) {
  const int n = channels ? channels : some_channels;
  for (int q = 0; q < count; q++, first += stride, dy += inner, offsets += inner)
    for (int c = 0; c < n; c++)
      if (const int64_t at = first + places[taps.known(offsets[c])]; uint64_t(at) < uint64_t(all))
        sums[at + c] += acc_t<T>(dy[c]);
}

// dy, offsets -> dx
template <class T, class Offset>
void max_backward(const Pool2d& g, const TapPlaces& taps, const std::vector<int64_t>& places, bool all_reach,
                  const T* dy, const Offset* offsets, T* dx, const Slab& slab, std::vector<acc_t<T>>& memory) {
  const Sums<T> sums(g, dx, slab, memory);
  const int64_t step = Sums<T>::step(slab.inner);
  for (int p = 0; p < g.P; p++) {
    const int64_t row = slab.at(int64_t(g.P) * g.Q, int64_t(p) * g.Q);
    if (all_reach) {
      (slab.inner == 1 ? scatter_row<1, T, Offset>
                       : scatter_row<0, T, Offset>)(taps, places.data(), taps.first(p, 0) * step,
                                                    int64_t(g.H) * g.W * step, g.stride_w * step, g.Q, dy + row,
                                                    offsets + row, slab.inner, slab.channels, sums.at(0));
      continue;
    }
    for (int q = 0; q < g.Q; q++)
      for (int c = 0; c < slab.channels; c++) {
        const int64_t from = row + q * slab.inner + c;
        if (const int64_t at = taps.inside(p, q, offsets[from]); at >= 0) sums.at(at)[c] += acc_t<T>(dy[from]);
      }
  }
}

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
