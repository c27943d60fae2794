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

constexpr int64_t kTogether = 64;  // channels of a piece, where they lie side by side
constexpr int64_t kRowsTogether = 16;  // written in turns: more may meet in the same sets of the L1

// An average's pass, planned, and the sizes of its windows
struct Planned {
  std::vector<double> rows, columns;
  Averages averages;
  Plan plan;

  Planned(Pass pass, const Adaptive& g, int64_t channels, DType dtype)
      : rows(sizes_of_windows(g.H, g.P)),
        columns(sizes_of_windows(g.W, g.Q)),
        averages{rows.data(), columns.data(), false, false},
        plan(pass, g, channels, dtype) {}

 private:
  static std::vector<double> sizes_of_windows(int size, int outputs) {
    std::vector<double> sizes;
    for (int p = 0; p < outputs; p++) {
      const Range r = adaptive_window(p, size, outputs);
      sizes.push_back(r.end - r.begin);
    }
    return sizes;
  }
};

struct Cpu {
  static constexpr bool takes_channels_last = true;
  const int64_t channels;  // of a position where the tensors lie channels_last, else 1
  Cpu(const Tensor& t, bool channels_last) : channels(channels_last ? t.size(1) : 1) {}
  explicit Cpu(const Tensor& output) : Cpu(output, is_channels_last(output)) {}

  void average(const Adaptive& g, DType dtype, const void* x, void* y) const {
    run(Pass::forward, g, dtype, kernels::average_forward.of(dtype), x, y);
  }
  void average_backward(const Adaptive& g, DType dtype, const void* dy, void* dx) const {
    run(Pass::share, g, dtype, kernels::average_backward.of(dtype), dy, dx);
  }
  void maximum(const Adaptive& g, DType dtype, const void* x, void* y, void* indices) const {
    const auto plan = pooling::planned(Pass::forward, g, channels, dtype);
    if (plan->pooling().byte_offsets) maximum<uint8_t>(g, dtype, *plan, x, y, static_cast<int64_t*>(indices));
    else maximum<int32_t>(g, dtype, *plan, x, y, static_cast<int64_t*>(indices));
  }
  void maximum_backward(const Adaptive& g, DType dtype, const void* dy, const void* indices, void* dx) const {
    over_channels(g, dtype, dy, indices, dx, g.P * g.Q, g.H * g.W,
                  [&](auto* from, const int64_t* where, auto* to, auto pixel, auto n) {
                    summed(to, g.H * g.W, pixel, n, [&](auto* sums, auto step) {
                      using A = std::remove_reference_t<decltype(*sums)>;
                      const uint64_t size = uint64_t(g.H) * uint64_t(g.W);
                      for (int i = 0, outputs = g.P * g.Q; i < outputs; i++, from += pixel, where += pixel)
                        for (int c = 0; c < n; c++)
                          if (uint64_t(where[c]) < size) sums[where[c] * step + c] += A(from[c]);
                    });
                  });
  }
  void unpool(const Adaptive& g, DType dtype, const void* x, const void* indices, void* y) const {
    std::atomic<const int64_t*> outside{nullptr};
    over_channels(g, dtype, x, indices, y, g.P * g.Q, g.H * g.W,
                  [&](auto* from, const int64_t* where, auto* to, auto pixel, auto n) {
                    clear(to, g.H * g.W, pixel, n);
                    for (int i = 0; i < g.P * g.Q; i++, from += pixel, where += pixel)
                      for (int c = 0; c < n; c++) {
                        if (where[c] >= 0 && where[c] < g.H * g.W) to[where[c] * pixel + c] = from[c];
                        else outside = where + c;
                      }
                  });
    CONVLAB_CHECK(!outside, "max_unpool2d: indices has ", *outside, ", which is no position of an output of ", g.H,
                  " x ", g.W);
  }
  void gather(const Adaptive& g, DType dtype, const void* x, const void* indices, void* y, bool to_planes) const {
    const int64_t size = int64_t(g.H) * g.W, outputs = int64_t(g.P) * g.Q;
    over_channels(
        g, dtype, x, indices, y, size, outputs,
        [&](auto* from, const int64_t* where, auto* to, auto pixel, auto n) {
          using T = std::remove_reference_t<decltype(*to)>;
          const auto element = [&](int64_t c, int64_t at) {
            return uint64_t(at) < uint64_t(size) ? from[at * pixel + c] : T(0.0f);
          };
          if (!to_planes) {
            for (int64_t i = 0; i < outputs; i++, to += pixel, where += pixel)
              for (int64_t c = 0; c < n; c++) to[c] = element(c, where[c]);
            return;
          }
          for (int64_t first = 0; first < n; first += kRowsTogether)
            for (int64_t i = 0, end = std::min<int64_t>(n, first + kRowsTogether); i < outputs; i++)
              for (int64_t c = first; c < end; c++) to[c * outputs + i] = element(c, where[i * pixel + c]);
        },
        to_planes);
  }

 private:
  template <class F> void run(Pass pass, const Adaptive& g, DType dtype, F* f, const void* from, void* to) const {
    const auto planned =
        pooling::planned(pass, pooling::numbers(g), channels, dtype, [&] { return Planned(pass, g, channels, dtype); });
    planned->plan.run([&](const Pooling& p, int64_t begin, int64_t end, char* scratch) {
      f(p, planned->averages, from, to, begin, end, scratch);
    });
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
    std::vector<int64_t> places(int64_t(adaptive_widest(g.H, g.P)) * scale);  // of taps, from a window's first
    for (size_t tap = 0; tap < places.size(); tap++) places[tap] = int64_t(tap) / scale * g.W + int64_t(tap) % scale;
    parallel_over(g.planes / channels * g.P, g.Q * channels, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin, i = begin * g.Q * channels; row < end; row++)
        for (int q = 0; q < g.Q; q++) {
          const int64_t first = int64_t(down[row % g.P].first) * g.W + across[q].first;
          for (int64_t c = 0; c < channels; c++, i++) indices[i] = first + places[size_t(offsets[i])];
        }
    });
  }

  // to [size, n], positions `pixel` apart, = 0
  template <class T> static void clear(T* to, int64_t size, int64_t pixel, int64_t n) {
    if (n == pixel) std::fill(to, to + size * n, T(0.0f));
    else
      for (int64_t i = 0; i < size; i++, to += pixel) std::fill(to, to + n, T(0.0f));
  }

  // The same = the sums that add(sums, step between positions) makes, in acc_t, from zeros
  template <class T, class Pixel, class F> static void summed(T* to, int64_t size, Pixel pixel, Pixel n, const F& add) {
    if constexpr (std::is_same_v<T, acc_t<T>>) {
      clear(to, size, pixel, n);
      add(to, pixel);
    } else {
      std::vector<acc_t<T>> sums(size * n);
      add(sums.data(), n);
      for (int64_t i = 0; i < size; i++)
        for (int64_t c = 0; c < n; c++) to[i * pixel + c] = T(sums[i * n + c]);
    }
  }

  // f(from, where, to, pixel, n) for n channels side by side, of positions `pixel` elements apart: planes, of which both
  // are known to be 1, or a few cache lines of each of an image's positions. `from` has `reads` positions an image, `to`
  // `writes`; to_planes: it is contiguous, whatever `from` is.
  template <class F>
  void over_channels(const Adaptive& g, DType dtype, const void* from, const void* indices, void* to, int64_t reads,
                     int64_t writes, const F& f, bool to_planes = false) const {
    const int64_t outputs = int64_t(g.P) * g.Q, blocks = pooling::parts(channels, kTogether),
                  pieces = g.planes / channels * blocks;
    dispatch(dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      parallel_over(pieces, (reads + writes) * channels / blocks, [&](int64_t begin, int64_t end) {
        for (int64_t piece = begin; piece < end; piece++) {
          const int64_t image = piece / blocks * channels, c = piece % blocks * kTogether;
          const T* const read = static_cast<const T*>(from) + image * reads + c;
          const int64_t* const where = static_cast<const int64_t*>(indices) + image * outputs + c;
          T* const written = static_cast<T*>(to) + image * writes + (to_planes ? c * writes : c);
          constexpr std::integral_constant<int64_t, 1> one;
          if (channels == 1) f(read, where, written, one, one);
          else f(read, where, written, channels, std::min(kTogether, channels - c));
        }
      });
    });
  }
};

}  // namespace
}  // namespace convlab

CONVLAB_REGISTER_CPU(m) { CONVLAB_ADAPTIVE_OPERATORS(m, convlab::Cpu); }
