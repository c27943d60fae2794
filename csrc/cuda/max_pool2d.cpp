// Max pooling on CUDA.
#include "host/max_pool2d_operators.h"

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

  void forward(const Pool2d& g, DType dtype, const void* x, void* y, void* offsets) const {
    convlab::max_pool2d_forward(g, channels, dtype, x, y, offsets, stream);
  }
  void backward(const Pool2d& g, DType dtype, const void* dy, const void* offsets, void* dx) const {
    convlab::max_pool2d_backward(g, channels, dtype, dy, offsets, dx, stream);
  }
  void gather(const Pool2d& g, DType dtype, const void* x, const void* offsets, void* y) const {
    convlab::max_pool2d_gather(g, channels, dtype, x, offsets, y, stream);
  }
  void indices(const Pool2d& g, const void* offsets, long long* out) const {
    convlab::max_pool2d_indices(g, channels, offsets, out, stream);
  }
};

}  // namespace
}  // namespace convlab

CONVLAB_REGISTER_CUDA(m) {
  m.impl("max_pool2d_forward", TORCH_BOX(&convlab::max_pool2d_forward<convlab::Cuda>));
  m.impl("max_pool2d_backward", TORCH_BOX(&convlab::max_pool2d_backward<convlab::Cuda>));
  m.impl("max_pool2d_gather", TORCH_BOX(&convlab::max_pool2d_gather<convlab::Cuda>));
  m.impl("max_pool2d_indices", TORCH_BOX(&convlab::max_pool2d_indices<convlab::Cuda>));
}
