// Leaky ReLU and ReLU on the CPU.
#include "host/leaky_relu_operators.h"

#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "host/registration.h"

namespace convlab {
namespace {

struct Cpu {
  explicit Cpu(const Tensor&) {}

  void leaky_relu_forward(DType dtype, long long elements, double negative_slope, const void* x, void* y,
                          void* positive) const {
    over_elements(elements, [&, f = functions(dtype).leaky_relu_forward](int64_t begin, int64_t end) {
      f(negative_slope, x, y, positive, begin, end);
    });
  }
  void leaky_relu_backward(DType dtype, long long elements, double negative_slope, const void* dy, const void* positive,
                           void* dx) const {
    over_elements(elements, [&, f = functions(dtype).leaky_relu_backward](int64_t begin, int64_t end) {
      f(negative_slope, dy, positive, dx, begin, end);
    });
  }
  void relu_forward(DType dtype, long long elements, const void* x, void* y) const {
    over_elements(elements,
                  [&, f = functions(dtype).relu_forward](int64_t begin, int64_t end) { f(x, y, begin, end); });
  }
  void relu_backward(DType dtype, long long elements, const void* dy, const void* y, void* dx) const {
    over_elements(elements,
                  [&, f = functions(dtype).relu_backward](int64_t begin, int64_t end) { f(dy, y, dx, begin, end); });
  }

 private:
  static const ActivationFunctions& functions(DType dtype) { return cpu_kernels().activations[int(dtype)]; }
  template <class F> static void over_elements(long long elements, const F& f) { parallel_over(elements, 1, f); }
};

}  // namespace
}  // namespace convlab

CONVLAB_REGISTER_CPU(m) {
  m.impl("leaky_relu_forward", TORCH_BOX(&convlab::leaky_relu_forward<convlab::Cpu>));
  m.impl("leaky_relu_backward", TORCH_BOX(&convlab::leaky_relu_backward<convlab::Cpu>));
  m.impl("relu_forward", TORCH_BOX(&convlab::relu_forward<convlab::Cpu>));
  m.impl("relu_backward", TORCH_BOX(&convlab::relu_backward<convlab::Cpu>));
}
