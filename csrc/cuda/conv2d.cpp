// Convolution on CUDA: the algorithms by number.
#include "../host/conv2d.h"

#include "../host/registration.h"
#include "../kernels/plans.h"
#include "stream.h"

namespace convlab {
namespace {

struct Cuda {
  static constexpr Backend id = Backend::cuda;
  static constexpr bool any_layout = false;
  const Tensor& like;
  CurrentStream stream;
  Cuda(const Tensor& t, const Layouts&) : like(t), stream(t) {}

  void forward(Algorithm algorithm, const Conv2d& g, DType dtype, const void* x, const void* w, const void* bias, void* y) const {
    const Plan plan = cuda_plan(algorithm, Pass::forward, dtype, g);
    Scratch workspace("workspace", plan.workspace, like);
    kernels_of(algorithm).forward(plan, g, dtype, x, w, bias, y, workspace.get(), stream);
  }

  void dgrad(Algorithm algorithm, const Conv2d& g, DType dtype, const void* dy, const void* w, void* dx) const {
    const Plan plan = cuda_plan(algorithm, Pass::dgrad, dtype, g);
    Scratch workspace("workspace", plan.workspace, like);
    kernels_of(algorithm).dgrad(plan, g, dtype, dy, w, dx, workspace.get(), stream);
  }

  void wgrad(Algorithm algorithm, const Conv2d& g, DType dtype, const void* dy, const void* x, void* dw, void* db) const {
    const Plan plan = cuda_plan(algorithm, Pass::wgrad, dtype, g);
    Scratch workspace("workspace", plan.workspace, like);
    kernels_of(algorithm).wgrad(plan, g, dtype, dy, x, dw, db, workspace.get(), stream);
  }

  void bias_grad(const Conv2d& g, DType dtype, const void* dy, void* db) const { conv2d_bias_grad(g, dtype, dy, db, stream); }

 private:
  static const ConvKernels& kernels_of(Algorithm algorithm) {
    for (const ConvKernels& row : kConvKernels)
      if (row.id == algorithm) return row;
    throw std::logic_error(message("convlab: the table of algorithms lists number ", int64_t(algorithm), " for CUDA, but no kernel is wired to it"));
  }
};

}  // namespace
}  // namespace convlab

CONVLAB_REGISTER_CUDA(m) {
  m.impl("conv2d_forward", TORCH_BOX(&convlab::conv2d_forward<convlab::Cuda>));
  m.impl("conv2d_dgrad", TORCH_BOX(&convlab::conv2d_dgrad<convlab::Cuda>));
  m.impl("conv2d_wgrad", TORCH_BOX(&convlab::conv2d_wgrad<convlab::Cuda>));
  m.impl("conv2d_bias_grad", TORCH_BOX(&convlab::conv2d_bias_grad<convlab::Cuda>));
}
