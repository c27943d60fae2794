// Leaky ReLU, ReLU and ReLU6 on the CPU.
#include "cpu/activations/leaky_relu.h"

#include "cpu/parallel.h"
#include "host/conv2d_block_operators.h"
#include "host/leaky_relu_operators.h"
#include "host/registration.h"

namespace convlab {
namespace {

struct Cpu {
  explicit Cpu(const Tensor&) {}

  void leaky_relu_forward(DType dtype, long long elements, double slope, const void* x, void* y, void* positive) const {
    over_elements(elements, kernels::leaky_relu_forward.of(dtype), slope, x, y, static_cast<uint8_t*>(positive));
  }
  void leaky_relu_backward(DType dtype, long long elements, double slope, const void* dy, const void* positive,
                           void* dx) const {
    over_elements(elements, kernels::leaky_relu_backward.of(dtype), slope, dy, static_cast<const uint8_t*>(positive),
                  dx);
  }
  void leaky_relu_forward_bits(DType dtype, long long elements, double slope, const void* x, void* y,
                               void* positive) const {
    over_elements(elements, kernels::leaky_relu_forward_bits.of(dtype), slope, x, y, static_cast<uint8_t*>(positive));
  }
  void leaky_relu_backward_bits(DType dtype, long long elements, double slope, const void* dy, const void* positive,
                                void* dx) const {
    over_elements(elements, kernels::leaky_relu_backward_bits.of(dtype), slope, dy,
                  static_cast<const uint8_t*>(positive), dx);
  }
  void relu_forward(DType dtype, long long elements, const void* x, void* y) const {
    over_elements(elements, kernels::relu_forward.of(dtype), x, y);
  }
  void relu_backward(DType dtype, long long elements, const void* dy, const void* y, void* dx) const {
    over_elements(elements, kernels::relu_backward.of(dtype), dy, y, dx);
  }
  void relu6_forward(DType dtype, long long elements, const void* x, void* y) const {
    over_elements(elements, kernels::relu6_forward.of(dtype), x, y);
  }
  void relu6_backward(DType dtype, long long elements, const void* dy, const void* y, void* dx) const {
    over_elements(elements, kernels::relu6_backward.of(dtype), dy, y, dx);
  }

  template <class Function, class... Arguments>
  static void over_elements(long long elements, Function* f, Arguments... arguments) {
    constexpr int64_t kPiece = 64;  // elements: whole words of bits, and whole lines of memory
    parallel_over((elements + kPiece - 1) / kPiece, kPiece, [&](int64_t begin, int64_t end) {
      f(arguments..., begin * kPiece, std::min<int64_t>(end * kPiece, elements));
    });
  }
};

// x = activated(x + residual), in one pass over memory, which bounds it
void add_activated_(Tensor x, Tensor residual, int64_t activation, double slope) {
  const char* op = "add_activated_";
  const DType dtype = common_dtype(op, {{"input", x}, {"residual", residual}});
  check_sizes(op, {"residual", residual}, sizes_of(x));
  const Ending e = make_ending(op, {activation, 1, 1}, slope);
  Tensor xd = dense(x);
  const Tensor rd = in_order_of(xd, residual);
  Cpu::over_elements(x.numel(), kernels::add_activated.of(dtype), e.activation, slope, rd.const_data_ptr(),
                     xd.mutable_data_ptr());
  write_back(x, xd);
}

}  // namespace
}  // namespace convlab

CONVLAB_REGISTER_CPU(m) {
  m.impl("leaky_relu_forward", TORCH_BOX(&convlab::leaky_relu_forward<convlab::Cpu>));
  m.impl("leaky_relu_", TORCH_BOX(&convlab::leaky_relu_<convlab::Cpu>));
  m.impl("leaky_relu_backward", TORCH_BOX(&convlab::leaky_relu_backward<convlab::Cpu>));
  m.impl("relu_forward", TORCH_BOX(&convlab::relu_forward<convlab::Cpu>));
  m.impl("relu_", TORCH_BOX(&convlab::relu_<convlab::Cpu>));
  m.impl("relu_backward", TORCH_BOX(&convlab::relu_backward<convlab::Cpu>));
  m.impl("relu6_forward", TORCH_BOX(&convlab::relu6_forward<convlab::Cpu>));
  m.impl("relu6_", TORCH_BOX(&convlab::relu6_<convlab::Cpu>));
  m.impl("relu6_backward", TORCH_BOX(&convlab::relu6_backward<convlab::Cpu>));
  m.impl("add_activated_", TORCH_BOX(&convlab::add_activated_));
}
