// Average pooling on CUDA.
#include "host/avg_pool2d_operators.h"

#include "cuda/stream.h"
#include "host/registration.h"

namespace convlab {
namespace {

struct Cuda {
  static constexpr bool takes_channels_last = false;
  CurrentStream stream;
  explicit Cuda(const Tensor& t) : stream(t) {}

  void forward(const AvgPool2d& a, DType dtype, const void* x, void* y) const {
    convlab::avg_pool2d_forward(a, dtype, x, y, stream);
  }
  void backward(const AvgPool2d& a, DType dtype, const void* dy, void* dx) const {
    convlab::avg_pool2d_backward(a, dtype, dy, dx, stream);
  }
};

}  // namespace
}  // namespace convlab

CONVLAB_REGISTER_CUDA(m) {
  m.impl("avg_pool2d_forward", TORCH_BOX(&convlab::avg_pool2d_forward<convlab::Cuda>));
  m.impl("avg_pool2d_backward", TORCH_BOX(&convlab::avg_pool2d_backward<convlab::Cuda>));
}
