// Max pooling on the CPU: forward and backward in the kernels of csrc/cpu/isa, what follows from the offsets here.
#include "../host/max_pool2d.h"

#include "../host/registration.h"
#include "pool2d.h"
#include "pool2d_plain.h"

namespace convlab {
namespace {

using namespace pooling::plain;
using pooling::Pass;
using pooling::Plan;
using pooling::Way;

// More windows over an element of x than this: scattering each window's gradient is faster than asking all of them.
constexpr int64_t kMostGathered = 64;

// Where the tap of an offset lies, from place (p stride - pad, q stride - pad) on
class TapPlaces {
 public:
  explicit TapPlaces(const Pool2d& g) : g_(g) {
    for (int i = 0; i < kListed; i++) listed_[i] = divided(i);
  }
  // The place in [H, W] of the winner of window (p, q); -1 when it lies outside: the window does, or the offset is nonsense
  int64_t winner(int p, int q, int offset) const {
    const Tap tap = unsigned(offset) < kListed ? listed_[offset] : divided(offset);
    const int64_t h = p * g_.stride_h - g_.pad_h + tap.h, w = q * g_.stride_w - g_.pad_w + tap.w;
    return h >= 0 && h < g_.H && w >= 0 && w < g_.W ? h * g_.W + w : -1;
  }
  // h W + w, also outside
  int64_t index(int p, int q, int offset) const {
    const Tap tap = unsigned(offset) < kListed ? listed_[offset] : divided(offset);
    return (p * g_.stride_h - g_.pad_h + tap.h) * g_.W + q * g_.stride_w - g_.pad_w + tap.w;
  }

 private:
  static constexpr int kListed = 256;  // all that fit a byte
  struct Tap {
    int64_t h, w;
  };
  Tap divided(int offset) const { return {int64_t(offset / g_.S) * g_.dilation_h, int64_t(offset % g_.S) * g_.dilation_w}; }

  const Pool2d& g_;
  Tap listed_[kListed];
};

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
      return Plan(Pass::forward, g, inner, dtype, way).run([&](const Pooling& p, int64_t begin, int64_t end, char* scratch) {
        f(p, x, y, offsets, begin, end, scratch);
      });
    }
    dispatch_both(dtype, g, [&](auto tag, auto offset_tag) {
      using T = typename decltype(tag)::type;
      using Offset = typename decltype(offset_tag)::type;
      over_layers(g, inner, [&](const Layer& l) { max_forward(g, static_cast<const T*>(x), static_cast<T*>(y), static_cast<Offset*>(offsets), l); });
    });
  }

  void backward(const Pool2d& g, DType dtype, const void* dy, const void* offsets, void* dx) const {
    if (const Way way = way_of(Pass::backward, g, dtype); way != Way::plain) {
      const auto f = functions(g, dtype).backward;
      return Plan(Pass::backward, g, inner, dtype, way).run([&](const Pooling& p, int64_t begin, int64_t end, char* scratch) {
        f(p, dy, offsets, dx, begin, end, scratch);
      });
    }
    dispatch_both(dtype, g, [&](auto tag, auto offset_tag) {
      using T = typename decltype(tag)::type;
      const T* dyt = static_cast<const T*>(dy);
      const auto* winners = static_cast<const typename decltype(offset_tag)::type*>(offsets);
      const TapPlaces places(g);
      over_layers(g, inner, [&, sums = std::vector<acc_t<T>>()](const Layer& l) mutable {
        scattered(g, static_cast<T*>(dx), l, sums, [&](int p, int q, int64_t from, acc_t<T>* to) {
          if (const int64_t at = places.winner(p, q, winners[from]); at >= 0) to[at] += acc_t<T>(dyt[from]);
        });
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
          const int64_t at = places.winner(p, q, winners[i]);
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
    if (pass == Pass::backward && pooling::coverings(g) > kMostGathered) return Way::plain;
    if (pass == Pass::backward && pooling::side_by_side(g)) return pooling::phases(pass, g) <= pooling::kMostPhases ? Way::lines : Way::plain;
    if (pooling::bytes_of(dtype) == pooling::acc_bytes_of(dtype) && inner >= cpu_kernels().lanes(dtype)) return Way::direct;
    return pooling::phases(pass, g) <= pooling::kMostPhases ? Way::lines : Way::plain;
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

}  // namespace
}  // namespace convlab

CONVLAB_REGISTER_CPU(m) {
  m.impl("max_pool2d_forward", TORCH_BOX(&convlab::max_pool2d_forward<convlab::Cpu>));
  m.impl("max_pool2d_backward", TORCH_BOX(&convlab::max_pool2d_backward<convlab::Cpu>));
  m.impl("max_pool2d_gather", TORCH_BOX(&convlab::max_pool2d_gather<convlab::Cpu>));
  m.impl("max_pool2d_indices", TORCH_BOX(&convlab::max_pool2d_indices<convlab::Cpu>));
}
