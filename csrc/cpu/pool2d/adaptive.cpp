// Adaptive pooling of windows that are not all alike, and max unpooling, on the CPU: plain loops over planes. (Windows of
// one size are an ordinary pooling's: convlab/_poolings.py.)
#include "host/adaptive_operators.h"

#include <atomic>
#include <vector>

#include "cpu/parallel.h"
#include "host/registration.h"

namespace convlab {
namespace {

struct Cpu {
  explicit Cpu(const Tensor&) {}

  void average(const Adaptive& g, DType dtype, const void* x, void* y) const {
    over_planes(g, dtype, x, y, g.H * g.W, g.P * g.Q, [&](auto* from, auto* to, int64_t) {
      for (int p = 0; p < g.P; p++)
        for (int q = 0; q < g.Q; q++) to[p * g.Q + q] = adaptive_average(g, from, p, q);
    });
  }
  // Windows in turn add to what they cover, so that sums are made in the same order every time.
  void average_backward(const Adaptive& g, DType dtype, const void* dy, void* dx) const {
    over_planes(g, dtype, dy, dx, g.P * g.Q, g.H * g.W, [&](auto* from, auto* to, int64_t) {
      summed(to, g.H * g.W, [&](auto* sums) {
        using A = std::remove_reference_t<decltype(*sums)>;
        for (int p = 0; p < g.P; p++) {
          const Range rows = adaptive_window(p, g.H, g.P);
          for (int q = 0; q < g.Q; q++) {
            const Range columns = adaptive_window(q, g.W, g.Q);
            const A share = A(from[p * g.Q + q]) / A((rows.end - rows.begin) * (columns.end - columns.begin));
            for (int h = rows.begin; h < rows.end; h++)
              for (int w = columns.begin; w < columns.end; w++) sums[h * g.W + w] += share;
          }
        }
      });
    });
  }
  void maximum(const Adaptive& g, DType dtype, const void* x, void* y, void* indices) const {
    over_planes(g, dtype, x, y, g.H * g.W, g.P * g.Q, [&](auto* from, auto* to, int64_t plane) {
      int64_t* const where = static_cast<int64_t*>(indices) + plane * g.P * g.Q;
      for (int p = 0; p < g.P; p++)
        for (int q = 0; q < g.Q; q++) {
          const int winner = adaptive_winner(g, from, p, q);
          to[p * g.Q + q] = from[winner], where[p * g.Q + q] = winner;
        }
    });
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
