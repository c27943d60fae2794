// Convolution on CUDA: the operators.
#include "host/conv2d_operators.h"

#include "cuda/change_layout.h"
#include "cuda/current_device.h"
#include "cuda/stream.h"
#include "host/conv2d_block_operators.h"
#include "host/registration.h"
#include "kernels/conv2d_block.h"

namespace convlab {
namespace {

struct Cuda : ChangesLayout {
  using Rung = CudaRung;
  static constexpr bool takes_channels_last = false;
  static int multiprocessors(const Tensor& t) { return convlab::multiprocessors(t.get_device_index()); }
  static int capability(const Tensor& t) { return convlab::capability(t.get_device_index()); }
  const Tensor& like;
  CurrentStream stream;
  explicit Cuda(const Tensor& t) : like(t), stream(t) {}

  void forward(const Chosen<CudaRung>& c, const Problem& p, const void* x, const void* w, const void* bias,
               void* y) const {
    Scratch workspace("workspace", c.plan.workspace, like);
    c.rung->run->forward(c.plan, p.g, p.dtype, x, w, bias, y, workspace.get(), stream);
  }
  void dgrad(const Chosen<CudaRung>& c, const Problem& p, const void* dy, const void* w, void* dx,
             const void* bias = nullptr) const {
    CONVLAB_CHECK(!bias, "conv2d_dgrad: bias must be None on CUDA, where whoever calls adds it");
    Scratch workspace("workspace", c.plan.workspace, like);
    c.rung->run->dgrad(c.plan, p.g, p.dtype, dy, w, dx, workspace.get(), stream);
  }
  void wgrad(const Chosen<CudaRung>& c, const Problem& p, const void* dy, const void* x, void* dw, void* db) const {
    Scratch workspace("workspace", c.plan.workspace, like);
    c.rung->run->wgrad(c.plan, p.g, p.dtype, dy, x, dw, db, workspace.get(), stream);
  }
  void bias_grad(const Problem& p, const void* dy, void* db) const { conv2d_bias_grad(p.g, p.dtype, dy, db, stream); }
  bool finishes(const Chosen<CudaRung>& c, const Ending& e, const Problem&, bool) const {
    return has_epilogue(c.plan.epilogue, e);
  }
  void forward(const Chosen<CudaRung>& c, const Problem& p, const Ending& e, const Pool2d& pool, int64_t, const void* x,
               const void* w, const void* bias, void* y, void* winners) const {
    c.rung->run->block(c.plan, p.g, e, pool, p.dtype, x, w, bias, y, winners, stream);
  }
  void finish(const Ending& e, const Pool2d& g, int64_t, DType dtype, const void* x, void* y, void* winners) const {
    block_finish(e, g, dtype, x, y, winners, stream);
  }
  void spread(const Ending& e, const Pool2d& g, int64_t, DType dtype, const void* dy, const void* winners,
              void* dx) const {
    block_spread(e, g, dtype, dy, winners, dx, stream);
  }
};

}  // namespace
}  // namespace convlab

CONVLAB_REGISTER_CUDA(m) {
  m.impl("conv2d_forward", TORCH_BOX(&convlab::conv2d_forward<convlab::Cuda>));
  m.impl("conv2d_dgrad", TORCH_BOX(&convlab::conv2d_dgrad<convlab::Cuda>));
  m.impl("conv2d_wgrad", TORCH_BOX(&convlab::conv2d_wgrad<convlab::Cuda>));
  m.impl("conv2d_backward", TORCH_BOX(&convlab::conv2d_backward<convlab::Cuda>));
  m.impl("conv2d_bias_grad", TORCH_BOX(&convlab::conv2d_bias_grad<convlab::Cuda>));
  m.impl("conv2d_block_forward", TORCH_BOX(&convlab::conv2d_block_forward<convlab::Cuda>));
  m.impl("conv2d_block_backward", TORCH_BOX(&convlab::conv2d_block_backward<convlab::Cuda>));
}
