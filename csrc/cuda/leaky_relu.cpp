// Leaky ReLU, ReLU and ReLU6 on CUDA.
#include "host/leaky_relu_operators.h"

#include "cuda/stream.h"
#include "host/registration.h"
#include "kernels/leaky_relu.h"

namespace convlab {
namespace {

struct Cuda {
  CurrentStream stream;
  explicit Cuda(const Tensor& t) : stream(t) {}

  void leaky_relu_forward(DType dtype, long long elements, double negative_slope, const void* x, void* y,
                          void* positive) const {
    convlab::leaky_relu_forward(dtype, elements, negative_slope, x, y, positive, stream);
  }
  void leaky_relu_backward(DType dtype, long long elements, double negative_slope, const void* dy, const void* positive,
                           void* dx) const {
    convlab::leaky_relu_backward(dtype, elements, negative_slope, dy, positive, dx, stream);
  }
  void leaky_relu_forward_bits(DType dtype, long long elements, double negative_slope, const void* x, void* y,
                               void* positive) const {
    convlab::leaky_relu_forward_bits(dtype, elements, negative_slope, x, y, positive, stream);
  }
  void leaky_relu_backward_bits(DType dtype, long long elements, double negative_slope, const void* dy,
                                const void* positive, void* dx) const {
    convlab::leaky_relu_backward_bits(dtype, elements, negative_slope, dy, positive, dx, stream);
  }
  void relu_forward(DType dtype, long long elements, const void* x, void* y) const {
    convlab::relu_forward(dtype, elements, x, y, stream);
  }
  void relu_backward(DType dtype, long long elements, const void* dy, const void* y, void* dx) const {
    convlab::relu_backward(dtype, elements, dy, y, dx, stream);
  }
  void relu6_forward(DType dtype, long long elements, const void* x, void* y) const {
    convlab::relu6_forward(dtype, elements, x, y, stream);
  }
  void relu6_backward(DType dtype, long long elements, const void* dy, const void* y, void* dx) const {
    convlab::relu6_backward(dtype, elements, dy, y, dx, stream);
  }
};

}  // namespace
}  // namespace convlab

CONVLAB_REGISTER_CUDA(m) {
  m.impl("leaky_relu_forward", TORCH_BOX(&convlab::leaky_relu_forward<convlab::Cuda>));
  m.impl("leaky_relu_", TORCH_BOX(&convlab::leaky_relu_<convlab::Cuda>));
  m.impl("leaky_relu_backward", TORCH_BOX(&convlab::leaky_relu_backward<convlab::Cuda>));
  m.impl("relu_forward", TORCH_BOX(&convlab::relu_forward<convlab::Cuda>));
  m.impl("relu_", TORCH_BOX(&convlab::relu_<convlab::Cuda>));
  m.impl("relu_backward", TORCH_BOX(&convlab::relu_backward<convlab::Cuda>));
  m.impl("relu6_forward", TORCH_BOX(&convlab::relu6_forward<convlab::Cuda>));
  m.impl("relu6_", TORCH_BOX(&convlab::relu6_<convlab::Cuda>));
  m.impl("relu6_backward", TORCH_BOX(&convlab::relu6_backward<convlab::Cuda>));
}
