// Adaptive pooling and max unpooling on CUDA.
#include "host/adaptive_operators.h"

#include "cuda/change_layout.h"
#include "cuda/stream.h"
#include "host/registration.h"
#include "kernels/adaptive_pool2d.h"

namespace convlab {
namespace {

struct Cuda : ChangesLayout {
  static constexpr bool takes_channels_last = false;
  const Tensor& like;
  CurrentStream stream;
  explicit Cuda(const Tensor& t, bool /*channels_last*/ = false) : like(t), stream(t) {}

  void average(const Adaptive& g, DType dtype, const void* x, void* y) const {
    adaptive_average(g, dtype, x, y, stream);
  }
  void average_backward(const Adaptive& g, DType dtype, const void* dy, void* dx) const {
    adaptive_average_backward(g, dtype, dy, dx, stream);
  }
  void maximum(const Adaptive& g, DType dtype, const void* x, void* y, void* indices) const {
    adaptive_maximum(g, dtype, x, y, indices, stream);
  }
  void maximum_backward(const Adaptive& g, DType dtype, const void* dy, const void* indices, void* dx) const {
    adaptive_maximum_backward(g, dtype, dy, indices, dx, stream);
  }
  void unpool(const Adaptive& g, DType dtype, const void* x, const void* indices, void* y) const {
    Scratch owners("owners", g.planes * g.H * g.W * int64_t(sizeof(int)), like);
    max_unpool(g, dtype, x, indices, owners.get(), y, stream);
  }
  void gather(const Adaptive& g, DType dtype, const void* x, const void* indices, void* y, bool /*to_planes*/) const {
    convlab::planes_gather(g, dtype, x, indices, y, stream);
  }
};

}  // namespace
}  // namespace convlab

CONVLAB_REGISTER_CUDA(m) { CONVLAB_ADAPTIVE_OPERATORS(m, convlab::Cuda); }
