// Adaptive pooling of windows that are not all alike, by pooling's kernels over tables of these windows, and max unpooling
// and scattering, plain loops over planes. (Windows of one size are an ordinary pooling's: convlab/_poolings.py.)
#include "host/adaptive_operators.h"

#include <atomic>
#include <memory>
#include <vector>

#include "cpu/pool2d/pooling_plan.h"
#include "host/registration.h"

namespace convlab {
namespace {

using pooling::Pass, pooling::Plan, pooling::Reads;

struct Cpu {
  static constexpr bool takes_channels_last = true;
  const int64_t channels;  // of a position where the tensors lie channels_last, else 1
  explicit Cpu(const Tensor& output) : channels(is_channels_last(output) ? output.size(1) : 1) {}

  void average(const Adaptive& g, DType dtype, const void* x, void* y) const {
    run(Pass::forward, g, dtype, kernels::average_forward.of(dtype), x, y);
  }
  void average_backward(const Adaptive& g, DType dtype, const void* dy, void* dx) const {
    run(Pass::backward, g, dtype, kernels::average_backward.of(dtype), dy, dx);
  }
  void maximum(const Adaptive& g, DType dtype, const void* x, void* y, void* indices) const {
    const Plan plan(Pass::forward, g, channels, dtype);
    if (plan.pooling().byte_offsets) maximum<uint8_t>(g, dtype, plan, x, y, static_cast<int64_t*>(indices));
    else maximum<int32_t>(g, dtype, plan, x, y, static_cast<int64_t*>(indices));
  }
  void maximum_backward(const Adaptive& g, DType dtype, const void* dy, const void* indices, void* dx) const {
    over_planes(g, dtype, dy, dx, g.P * g.Q, g.H * g.W, [&](auto* from, auto* to, int64_t plane) {
      const int64_t* const where = static_cast<const int64_t*>(indices) + plane * g.P * g.Q;
      summed(to, g.H * g.W, [&](auto* sums) {
        using A = std::remove_reference_t<decltype(*sums)>;
        for (int i = 0; i < g.P * g.Q; i++)
          if (where[i] >= 0 && where[i] < g.H * g.W) sums[where[i]] += A(from[i]);
      });
    });
  }
  void unpool(const Adaptive& g, DType dtype, const void* x, const void* indices, void* y) const {
    std::atomic<int64_t> outside{-1};
    over_planes(g, dtype, x, y, g.P * g.Q, g.H * g.W, [&](auto* from, auto* to, int64_t plane) {
      const int64_t* const where = static_cast<const int64_t*>(indices) + plane * g.P * g.Q;
      std::fill(to, to + g.H * g.W, std::remove_reference_t<decltype(*to)>(0.0f));
      for (int i = 0; i < g.P * g.Q; i++) {
        if (where[i] >= 0 && where[i] < g.H * g.W) to[where[i]] = from[i];
        else outside = plane * g.P * g.Q + i;
      }
    });
    CONVLAB_CHECK(outside < 0, "max_unpool2d: indices has ",
                  static_cast<const int64_t*>(indices)[outside < 0 ? 0 : outside.load()],
                  ", which is no position of an output of ", g.H, " x ", g.W);
  }
  void gather(const Adaptive& g, DType dtype, const void* x, const void* indices, void* y) const {
    over_planes(g, dtype, x, y, g.H * g.W, g.P * g.Q, [&](auto* from, auto* to, int64_t plane) {
      const int64_t* const where = static_cast<const int64_t*>(indices) + plane * g.P * g.Q;
      using T = std::remove_reference_t<decltype(*to)>;
      for (int i = 0; i < g.P * g.Q; i++) to[i] = where[i] >= 0 && where[i] < g.H * g.W ? from[where[i]] : T(0.0f);
    });
  }

 private:
  template <class F> void run(Pass pass, const Adaptive& g, DType dtype, F* f, const void* from, void* to) const {
    const std::vector<double> rows = sizes_of_windows(g.H, g.P), columns = sizes_of_windows(g.W, g.Q);
    const Averages averages{rows.data(), columns.data(), false};
    Plan(pass, g, channels, dtype).run([&](const Pooling& p, int64_t begin, int64_t end, char* scratch) {
      f(p, averages, from, to, begin, end, scratch);
    });
  }
  static std::vector<double> sizes_of_windows(int size, int outputs) {
    std::vector<double> sizes;
    for (int p = 0; p < outputs; p++) {
      const Range r = adaptive_window(p, size, outputs);
      sizes.push_back(r.end - r.begin);
    }
    return sizes;
  }

  // Which tap won, of Offset, becomes a position of the plane.
  template <class Offset>
  void maximum(const Adaptive& g, DType dtype, const Plan& plan, const void* x, void* y, int64_t* indices) const {
    const std::unique_ptr<Offset[]> offsets(new Offset[g.planes * g.P * g.Q]);
    plan.run([&](const Pooling& p, int64_t begin, int64_t end, char* scratch) {
      kernels::max_forward.of(dtype)(p, x, y, offsets.get(), begin, end, scratch);
    });
    const Reads *const down = plan.pooling().rows.reads, *const across = plan.pooling().columns.reads;
    const int scale = adaptive_widest(g.W, g.Q);
    parallel_over(g.planes / channels * g.P, g.Q * channels, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin, i = begin * g.Q * channels; row < end; row++)
        for (int q = 0; q < g.Q; q++) {
          const int64_t first = int64_t(down[row % g.P].first) * g.W + across[q].first;
          for (int64_t c = 0; c < channels; c++, i++)
            indices[i] = first + int64_t(offsets[i] / scale) * g.W + offsets[i] % scale;
        }
    });
  }

  // to [size] = the sums that add(sums) makes, in acc_t, from zeros
  template <class T, class F> static void summed(T* to, int64_t size, const F& add) {
    if constexpr (std::is_same_v<T, acc_t<T>>) {
      std::fill(to, to + size, T(0));
      add(to);
    } else {
      std::vector<acc_t<T>> sums(size);
      add(sums.data());
      std::transform(sums.begin(), sums.end(), to, [](acc_t<T> sum) { return T(sum); });
    }
  }

  // f(from, to, plane) for all planes, of `reads` and `writes` elements
  template <class F>
  static void over_planes(const Adaptive& g, DType dtype, const void* from, void* to, int64_t reads, int64_t writes,
                          const F& f) {
    dispatch(dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      parallel_over(g.planes, reads + writes, [&](int64_t begin, int64_t end) {
        for (int64_t plane = begin; plane < end; plane++)
          f(static_cast<const T*>(from) + plane * reads, static_cast<T*>(to) + plane * writes, plane);
      });
    });
  }
};

}  // namespace
}  // namespace convlab

CONVLAB_REGISTER_CPU(m) { CONVLAB_ADAPTIVE_OPERATORS(m, convlab::Cpu); }
