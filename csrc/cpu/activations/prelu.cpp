// PReLU on the CPU.
#include "cpu/activations/prelu.h"

#include <vector>

#include "cpu/parallel.h"
#include "host/prelu_operators.h"
#include "host/registration.h"

namespace convlab {
namespace {

struct Cpu {
  explicit Cpu(const Tensor&) {}

  void scale(ByChannel g, DType dtype, bool keep, const void* t, const void* x, const void* w, void* out) const {
    if (g.channels == 1) {  // in rows that threads can share
      constexpr int64_t kRow = 4096;
      run_scale({g.inner / kRow, 1, kRow}, dtype, keep, t, x, w, out, 0);
      run_scale({1, 1, g.inner % kRow}, dtype, keep, t, x, w, out, g.inner / kRow * kRow);
    } else {
      run_scale(g, dtype, keep, t, x, w, out, 0);
    }
  }
  void wgrad(const ByChannel& g, DType dtype, const void* dy, const void* t, const void* x, void* dw) const {
    const int64_t slices = channel_slices(g);
    std::vector<double> parts(slices * g.channels);
    const auto kernel = kernels::prelu_wgrad.of(dtype);
    parallel_over(slices, g.elements() / slices,
                  [&](int64_t begin, int64_t end) { kernel(g, slices, dy, t, x, parts.data(), begin, end); });
    kernels::prelu_add_slices.of(dtype)(g.channels, slices, parts.data(), dw);
  }

 private:
  static void run_scale(const ByChannel& g, DType dtype, bool keep, const void* t, const void* x, const void* w,
                        void* out, int64_t skipped) {
    const auto kernel = kernels::prelu_scale.of(dtype);
    const int64_t bytes = skipped * bytes_of(dtype);
    const auto from = [&](const void* p) { return static_cast<const char*>(p) + bytes; };
    if (g.elements() == 0) return;
    parallel_over(g.rows(), g.row(), [&](int64_t begin, int64_t end) {
      kernel(g, keep, from(t), from(x), w, static_cast<char*>(out) + bytes, begin, end);
    });
  }
};

}  // namespace
}  // namespace convlab

CONVLAB_REGISTER_CPU(m) {
  m.impl("prelu_scale", TORCH_BOX(&convlab::prelu_scale<convlab::Cpu>));
  m.impl("prelu_wgrad", TORCH_BOX(&convlab::prelu_wgrad<convlab::Cpu>));
}
