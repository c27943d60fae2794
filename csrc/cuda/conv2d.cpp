// Convolution on CUDA: the operators.
#include "host/conv2d_operators.h"

#include "cuda/stream.h"
#include "host/registration.h"
#include "kernels/launchers.h"

namespace convlab {
namespace {

struct Cuda {
  using Rung = CudaRung;
  static constexpr bool takes_channels_last = false;
  const Tensor& like;
  CurrentStream stream;
  explicit Cuda(const Tensor& t) : like(t), stream(t) {}

  void forward(const Chosen<CudaRung>& c, const Problem& p, const void* x, const void* w, const void* bias,
               void* y) const {
    Scratch workspace("workspace", c.plan.workspace, like);
    c.rung->run->forward(c.plan, p.g, p.dtype, x, w, bias, y, workspace.get(), stream);
  }
  void dgrad(const Chosen<CudaRung>& c, const Problem& p, const void* dy, const void* w, void* dx) const {
    Scratch workspace("workspace", c.plan.workspace, like);
    c.rung->run->dgrad(c.plan, p.g, p.dtype, dy, w, dx, workspace.get(), stream);
  }
  void wgrad(const Chosen<CudaRung>& c, const Problem& p, const void* dy, const void* x, void* dw, void* db) const {
    Scratch workspace("workspace", c.plan.workspace, like);
    c.rung->run->wgrad(c.plan, p.g, p.dtype, dy, x, dw, db, workspace.get(), stream);
  }
  void bias_grad(const Problem& p, const void* dy, void* db) const { conv2d_bias_grad(p.g, p.dtype, dy, db, stream); }
};

}  // namespace
}  // namespace convlab

CONVLAB_REGISTER_CUDA(m) {
  m.impl("conv2d_forward", TORCH_BOX(&convlab::conv2d_forward<convlab::Cuda>));
  m.impl("conv2d_dgrad", TORCH_BOX(&convlab::conv2d_dgrad<convlab::Cuda>));
  m.impl("conv2d_wgrad", TORCH_BOX(&convlab::conv2d_wgrad<convlab::Cuda>));
  m.impl("conv2d_bias_grad", TORCH_BOX(&convlab::conv2d_bias_grad<convlab::Cuda>));
}
