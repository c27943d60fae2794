// PReLU on CUDA.
#include "host/prelu_operators.h"

#include "cuda/stream.h"
#include "host/registration.h"
#include "kernels/launchers.h"

namespace convlab {
namespace {

struct Cuda {
  const Tensor& like;
  CurrentStream stream;
  explicit Cuda(const Tensor& t) : like(t), stream(t) {}

  void scale(const ByChannel& g, DType dtype, bool keep, const void* t, const void* x, const void* w, void* out) const {
    convlab::prelu_scale(g, dtype, keep, t, x, w, out, stream);
  }
  void wgrad(const ByChannel& g, DType dtype, const void* dy, const void* t, const void* x, void* dw) const {
    Scratch parts("sums of slices", channel_slices(g) * g.channels * sum_bytes(dtype), like);
    convlab::prelu_wgrad(g, dtype, dy, t, x, parts.get(), dw, stream);
  }
};

}  // namespace
}  // namespace convlab

CONVLAB_REGISTER_CUDA(m) {
  m.impl("prelu_scale", TORCH_BOX(&convlab::prelu_scale<convlab::Cuda>));
  m.impl("prelu_wgrad", TORCH_BOX(&convlab::prelu_wgrad<convlab::Cuda>));
}
