// Leaky ReLU and ReLU on the CPU, element by element. ReLU is not leaky ReLU with slope 0: -inf times 0 is NaN.
#include "../host/leaky_relu.h"

#include "../host/registration.h"
#include "parallel.h"

namespace convlab {
namespace {

struct Cpu {
  explicit Cpu(const Tensor&) {}

  void leaky_relu_forward(DType dtype, long long elements, double negative_slope, const void* x, void* y) const {
    dispatch(dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      using A = acc_t<T>;
      unary<T>(elements, x, y, [slope = A(negative_slope)](A v) { return v > A(0) ? v : v * slope; });
    });
  }

  void leaky_relu_backward(DType dtype, long long elements, double negative_slope, const void* dy, const void* x, void* dx) const {
    dispatch(dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      using A = acc_t<T>;
      binary<T>(elements, dy, x, dx, [slope = A(negative_slope)](A grad, A v) { return v > A(0) ? grad : grad * slope; });
    });
  }

  void relu_forward(DType dtype, long long elements, const void* x, void* y) const {
    dispatch(dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      using A = acc_t<T>;
      unary<T>(elements, x, y, [](A v) { return v <= A(0) ? A(0) : v; });  // NaN stays
    });
  }

  void relu_backward(DType dtype, long long elements, const void* dy, const void* y, void* dx) const {
    dispatch(dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      using A = acc_t<T>;
      binary<T>(elements, dy, y, dx, [](A grad, A v) { return v <= A(0) ? A(0) : grad; });
    });
  }

 private:
  template <class T, class F> static void unary(long long elements, const void* in, void* out, F f) {
    const T* a = static_cast<const T*>(in);
    T* o = static_cast<T*>(out);
    parallel_over(elements, sizeof(T), [=](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) o[i] = T(f(acc_t<T>(a[i])));
    });
  }

  template <class T, class F> static void binary(long long elements, const void* first, const void* second, void* out, F f) {
    const T *a = static_cast<const T*>(first), *b = static_cast<const T*>(second);
    T* o = static_cast<T*>(out);
    parallel_over(elements, sizeof(T), [=](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) o[i] = T(f(acc_t<T>(a[i]), acc_t<T>(b[i])));
    });
  }
};

}  // namespace
}  // namespace convlab

CONVLAB_REGISTER_CPU(m) {
  m.impl("leaky_relu_forward", TORCH_BOX(&convlab::leaky_relu_forward<convlab::Cpu>));
  m.impl("leaky_relu_backward", TORCH_BOX(&convlab::leaky_relu_backward<convlab::Cpu>));
  m.impl("relu_forward", TORCH_BOX(&convlab::relu_forward<convlab::Cpu>));
  m.impl("relu_backward", TORCH_BOX(&convlab::relu_backward<convlab::Cpu>));
}
