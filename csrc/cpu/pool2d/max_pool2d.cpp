// Max pooling on the CPU: the operators, and which way they go.
#include "host/max_pool2d_operators.h"

#include "cpu/integer_operators.h"
#include "cpu/pool2d/plain.h"
#include "cpu/pool2d/pooling_plan.h"
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
    const Way way = way_of(Pass::forward, g, dtype);
    if (way == Way::plain) return forward_plain(g, dtype, x, y, offsets);
    const bool lines = way == Way::lines;
    const auto f = (lines ? kernels::max_lines_forward : kernels::max_channels_forward).of(dtype);
    Plan(Pass::forward, g, inner, dtype, way)
        .run(
            [&](auto& memory, auto sum, const Pooling& p, int lanes) {
              using A = decltype(sum);
              if (lines) pooling::max_forward_memory<A>(memory, p, lanes);
              else pooling::channels_memory(memory, p, false);
            },
            [&](const Pooling& p, int64_t begin, int64_t end, char* scratch) {
              f(p, x, y, offsets, begin, end, scratch);
            });
  }

  void backward(const Pool2d& g, DType dtype, const void* dy, const void* offsets, void* dx) const {
    const Way way = way_of(Pass::backward, g, dtype);
    if (way == Way::plain) return backward_plain(g, dtype, dy, offsets, dx);
    const bool lines = way == Way::lines;
    const auto f = (lines ? kernels::max_lines_backward : kernels::max_channels_backward).of(dtype);
    Plan(Pass::backward, g, inner, dtype, way)
        .run(
            [&](auto& memory, auto sum, const Pooling& p, int lanes) {
              using A = decltype(sum);
              if (lines) pooling::max_backward_memory<A>(memory, p, lanes);
              else pooling::channels_memory(memory, p, true);
            },
            [&](const Pooling& p, int64_t begin, int64_t end, char* scratch) {
              f(p, dy, offsets, dx, begin, end, scratch);
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
  void forward_plain(const Pool2d& g, DType dtype, const void* x, void* y, void* offsets) const {
    dispatch_both(dtype, g, [&](auto tag, auto offset_tag) {
      using T = typename decltype(tag)::type;
      using Offset = typename decltype(offset_tag)::type;
      each_slab(g, inner, [&](const Slab& slab) {
        max_forward(g, static_cast<const T*>(x), static_cast<T*>(y), static_cast<Offset*>(offsets), slab);
      });
    });
  }

  void backward_plain(const Pool2d& g, DType dtype, const void* dy, const void* offsets, void* dx) const {
    dispatch_both(dtype, g, [&](auto tag, auto offset_tag) {
      using T = typename decltype(tag)::type;
      const auto* winners = static_cast<const typename decltype(offset_tag)::type*>(offsets);
      const TapPlaces places(g);
      const std::vector<int64_t> scaled = places.places(Sums<T>::step(inner));
      const bool all_reach = places.all_reach();
      each_slab(g, inner, [&, memory = std::vector<acc_t<T>>()](const Slab& slab) mutable {
        max_backward(g, places, scaled, all_reach, static_cast<const T*>(dy), winners, static_cast<T*>(dx), slab,
                     memory);
      });
    });
  }

  Way way_of(Pass pass, const Pool2d& g, DType dtype) const {
    const int lanes = instruction_set().lanes(dtype);
    const bool lines = pooling::phases(pass, g) <= pooling::kMostPhases,
               channels = inner >= lanes && is_sum_type(dtype);
    if (pass == Pass::forward) return channels ? Way::channels : lines ? Way::lines : Way::plain;
    const bool rows = lines && inner == 1 && g.stride_w <= 2;
    if (pooling::side_by_side(g) && (rows || (lines && inner >= lanes))) return Way::lines;
    if (channels && (inner == lanes || inner >= 2 * lanes))
      return g.R * g.S <= kGatheredTaps ? Way::channels : Way::plain;
    const bool few = g.R * g.S <= kGatheredWindows * g.stride_h * g.stride_w && g.Q >= kFilledVectors * lanes;
    return rows && few ? Way::lines : Way::plain;
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
