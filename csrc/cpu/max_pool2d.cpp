// Max pooling on the CPU: forward and backward in the kernels of csrc/cpu/isa, what follows from the offsets here.
#include "host/max_pool2d_operators.h"

#include "cpu/integers.h"
#include "cpu/pool2d.h"
#include "cpu/pool2d_plain.h"
#include "host/registration.h"

namespace convlab {
namespace {

using namespace pooling::plain;
using pooling::Pass;
using pooling::Plan;
using pooling::Way;

// In backward, gathering asks every window that may cover an element, for a vector of elements at a time. Scattering
// adds up what each window gives, one by one, but costs no more where windows overlap more. Gathering is the faster one
//   along rows, for few windows over an element, and rows that fill vectors
//   along channels, for few taps a window
constexpr int kGatheredWindows = 3, kGatheredTaps = 16;
constexpr double kFilledVectors = 2.5;

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
void scatter(const Pool2d& g, const TapPlaces& taps, const std::vector<int64_t>& places, bool all_reach, const T* dy,
             const Offset* offsets, T* dx, const Slab& slab, std::vector<acc_t<T>>& memory) {
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

template <class F> void dispatch_offset(const Pool2d& g, F&& f) {
  if (offsets_fit_a_byte(g)) f(type_tag<uint8_t>{});
  else f(type_tag<int32_t>{});
}

template <class F> void dispatch_both(DType dtype, const Pool2d& g, F&& f) {
  dispatch(dtype, [&](auto tag) { dispatch_offset(g, [&](auto offset_tag) { f(tag, offset_tag); }); });
}

struct Cpu {
  static constexpr bool any_layout = true;
  const int64_t inner;  // channels of a place where the tensors lie channels_last, else 1
  explicit Cpu(const Tensor& output) : inner(is_channels_last(output) ? output.size(1) : 1) {}

  void forward(const Pool2d& g, DType dtype, const void* x, void* y, void* offsets) const {
    if (const Way way = way_of(Pass::forward, g, dtype); way != Way::plain) {
      const auto f = functions(g, dtype).forward;
      return Plan(Pass::forward, g, inner, dtype, way)
          .run([&](const Pooling& p, int64_t begin, int64_t end, char* scratch) {
            f(p, x, y, offsets, begin, end, scratch);
          });
    }
    dispatch_both(dtype, g, [&](auto tag, auto offset_tag) {
      using T = typename decltype(tag)::type;
      using Offset = typename decltype(offset_tag)::type;
      each_slab(g, inner, [&](const Slab& slab) {
        max_forward(g, static_cast<const T*>(x), static_cast<T*>(y), static_cast<Offset*>(offsets), slab);
      });
    });
  }

  void backward(const Pool2d& g, DType dtype, const void* dy, const void* offsets, void* dx) const {
    if (const Way way = way_of(Pass::backward, g, dtype); way != Way::plain) {
      const auto f = functions(g, dtype).backward;
      return Plan(Pass::backward, g, inner, dtype, way)
          .run([&](const Pooling& p, int64_t begin, int64_t end, char* scratch) {
            f(p, dy, offsets, dx, begin, end, scratch);
          });
    }
    dispatch_both(dtype, g, [&](auto tag, auto offset_tag) {
      using T = typename decltype(tag)::type;
      const auto* winners = static_cast<const typename decltype(offset_tag)::type*>(offsets);
      const TapPlaces places(g);
      const std::vector<int64_t> scaled = places.places(Sums<T>::step(inner));
      const bool all_reach = places.all_reach();
      each_slab(g, inner, [&, memory = std::vector<acc_t<T>>()](const Slab& slab) mutable {
        scatter(g, places, scaled, all_reach, static_cast<const T*>(dy), winners, static_cast<T*>(dx), slab, memory);
      });
    });
  }

  void gather(const Pool2d& g, DType dtype, const void* x, const void* offsets, void* y) const {
    dispatch_both(dtype, g, [&](auto tag, auto offset_tag) {
      using T = typename decltype(tag)::type;
      using Offset = typename decltype(offset_tag)::type;
      const T* xt = static_cast<const T*>(x);
      const Offset* winners = static_cast<const Offset*>(offsets);
      T* yt = static_cast<T*>(y);
      const TapPlaces places(g);
      over_outputs(g, [&](int64_t plane, int p, int q, int64_t first) {
        for (int64_t i = first; i < first + inner; i++) {
          const int64_t at = places.inside(p, q, winners[i]);
          yt[i] = at >= 0 ? xt[(plane * g.H * g.W + at) * inner + i - first] : T(0.0f);
        }
      });
    });
  }

  void indices(const Pool2d& g, const void* offsets, long long* out) const {
    dispatch_offset(g, [&](auto offset_tag) {
      const auto* winners = static_cast<const typename decltype(offset_tag)::type*>(offsets);
      const TapPlaces places(g);
      over_outputs(g, [&](int64_t, int p, int q, int64_t first) {
        for (int64_t i = first; i < first + inner; i++) out[i] = places.index(p, q, winners[i]);
      });
    });
  }

 private:
  Way way_of(Pass pass, const Pool2d& g, DType dtype) const {
    const int lanes = cpu_kernels().lanes(dtype);
    const bool lines = pooling::phases(pass, g) <= pooling::kMostPhases,
               channels = inner >= lanes && pooling::bytes_of(dtype) == pooling::acc_bytes_of(dtype);
    if (pass == Pass::backward) {
      if (lines && pooling::side_by_side(g) && (inner >= lanes || (inner == 1 && g.stride_w <= 2))) return Way::lines;
      if (channels && (inner == lanes || inner >= 2 * lanes))
        return g.R * g.S <= kGatheredTaps ? Way::direct : Way::plain;
      const bool few = g.R * g.S <= kGatheredWindows * g.stride_h * g.stride_w && g.Q >= kFilledVectors * lanes;
      return lines && inner == 1 && g.stride_w <= 2 && few ? Way::lines : Way::plain;
    }
    return channels ? Way::direct : lines ? Way::lines : Way::plain;
  }

  static const MaxPoolFunctions& functions(const Pool2d& g, DType dtype) {
    const CpuKernels& k = cpu_kernels();
    return (offsets_fit_a_byte(g) ? k.max_pool : k.max_pool_int)[int(dtype)];
  }

  // Calls f(plane, p, q, first element) for all outputs, from several threads
  template <class F> void over_outputs(const Pool2d& g, const F& f) const {
    parallel_over(g.planes / inner * g.P, g.Q * inner, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++)
        for (int q = 0; q < g.Q; q++) f(i / g.P, int(i % g.P), q, (i * g.Q + q) * inner);
    });
  }
};

std::tuple<Tensor, Tensor> forward(Tensor x, Sizes kernel_size, Sizes stride, Sizes padding, Sizes dilation,
                                   bool ceil_mode, bool with_offsets) {
  if (integers::is_integer(x))
    return integers::max_pool2d_forward(x, kernel_size, stride, padding, dilation, ceil_mode, with_offsets);
  return max_pool2d_forward<Cpu>(std::move(x), std::move(kernel_size), std::move(stride), std::move(padding),
                                 std::move(dilation), ceil_mode, with_offsets);
}

}  // namespace
}  // namespace convlab

CONVLAB_REGISTER_CPU(m) {
  m.impl("max_pool2d_forward", TORCH_BOX(&convlab::forward));
  m.impl("max_pool2d_backward", TORCH_BOX(&convlab::max_pool2d_backward<convlab::Cpu>));
  m.impl("max_pool2d_gather", TORCH_BOX(&convlab::max_pool2d_gather<convlab::Cpu>));
  m.impl("max_pool2d_indices", TORCH_BOX(&convlab::max_pool2d_indices<convlab::Cpu>));
}
