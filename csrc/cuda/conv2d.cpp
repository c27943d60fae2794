// Convolution on CUDA: the algorithms by number.
#include "host/conv2d_operators.h"

#include <cstring>

#include "cuda/stream.h"
#include "host/registration.h"
#include "kernels/launchers.h"
#include "kernels/rung.h"

namespace convlab {
namespace {

struct Cuda {
  static constexpr Backend id = Backend::cuda;
  static constexpr bool any_layout = false;
  const Tensor& like;
  CurrentStream stream;
  Cuda(const Tensor& t, const Layouts&) : like(t), stream(t) {}

  void forward(Algorithm algorithm, const Conv2d& g, DType dtype, const void* x, const void* w, const void* bias,
               void* y) const {
    const AlgorithmRow& row = *find_algorithm(int64_t(algorithm));
    const Plan plan = row.rung->plan(Pass::forward, dtype, g);
    Scratch workspace("workspace", plan.workspace, like);
    kernels_of(row).forward(plan, g, dtype, x, w, bias, y, workspace.get(), stream);
  }

  void dgrad(Algorithm algorithm, const Conv2d& g, DType dtype, const void* dy, const void* w, void* dx) const {
    const AlgorithmRow& row = *find_algorithm(int64_t(algorithm));
    const Plan plan = row.rung->plan(Pass::dgrad, dtype, g);
    Scratch workspace("workspace", plan.workspace, like);
    kernels_of(row).dgrad(plan, g, dtype, dy, w, dx, workspace.get(), stream);
  }

  void wgrad(Algorithm algorithm, const Conv2d& g, DType dtype, const void* dy, const void* x, void* dw,
             void* db) const {
    const AlgorithmRow& row = *find_algorithm(int64_t(algorithm));
    const Plan plan = row.rung->plan(Pass::wgrad, dtype, g);
    Scratch workspace("workspace", plan.workspace, like);
    kernels_of(row).wgrad(plan, g, dtype, dy, x, dw, db, workspace.get(), stream);
  }

  void bias_grad(const Conv2d& g, DType dtype, const void* dy, void* db) const {
    conv2d_bias_grad(g, dtype, dy, db, stream);
  }

 private:
  static const ConvKernels& kernels_of(const AlgorithmRow& row) {
    for (const ConvKernels* kernels = ConvKernels::first(); kernels; kernels = kernels->next)
      if (std::strcmp(kernels->name, row.name) == 0) return *kernels;
    throw std::logic_error(message("convlab: the table of algorithms has '", row.name, "' for CUDA, but no conv2d_",
                                   row.name, ".cu has kernels of this name"));
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
