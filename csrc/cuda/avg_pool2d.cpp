// Average pooling on CUDA.
#include "host/avg_pool2d_operators.h"

#include "cuda/change_layout.h"
#include "cuda/stream.h"
#include "host/registration.h"

namespace convlab {
namespace {

struct Cuda : ChangesLayout {
  static constexpr bool takes_channels_last = true;
  CurrentStream stream;
  const int channels;  // of a position where the tensors lie channels_last, else 1
  explicit Cuda(const Tensor& output) : stream(output), channels(is_channels_last(output) ? int(output.size(1)) : 1) {}

  void forward(const AvgPool2d& a, DType dtype, const void* x, void* y) const {
    convlab::avg_pool2d_forward(a, channels, dtype, x, y, stream);
  }
  void backward(const AvgPool2d& a, DType dtype, const void* dy, void* dx) const {
    convlab::avg_pool2d_backward(a, channels, dtype, dy, dx, stream);
  }
};

}  // namespace
}  // namespace convlab

CONVLAB_REGISTER_CUDA(m) {
  m.impl("avg_pool2d_forward", TORCH_BOX(&convlab::avg_pool2d_forward<convlab::Cuda>));
  m.impl("avg_pool2d_backward", TORCH_BOX(&convlab::avg_pool2d_backward<convlab::Cuda>));
}
