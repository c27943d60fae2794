// Convolution on CUDA: the algorithms by number.
#include "../host/conv2d.h"

#include "../host/registration.h"
#include "stream.h"

namespace convlab {
namespace {

struct Cuda {
  static constexpr Backend id = Backend::cuda;
  CurrentStream stream;
  explicit Cuda(const Tensor& t) : stream(t) {}

  void forward(Algorithm algorithm, const Conv2d& g, DType dtype, const void* x, const void* w, const void* bias, void* y) const {
    switch (algorithm) {
      case Algorithm::direct: return conv2d_direct_forward(g, dtype, x, w, bias, y, stream);
      default: throw not_here(algorithm);
    }
  }

  void dgrad(Algorithm algorithm, const Conv2d& g, DType dtype, const void* dy, const void* w, void* dx) const {
    switch (algorithm) {
      case Algorithm::direct: return conv2d_direct_dgrad(g, dtype, dy, w, dx, stream);
      default: throw not_here(algorithm);
    }
  }

  void wgrad(Algorithm algorithm, const Conv2d& g, DType dtype, const void* dy, const void* x, void* dw) const {
    switch (algorithm) {
      case Algorithm::direct: return conv2d_direct_wgrad(g, dtype, dy, x, dw, stream);
      default: throw not_here(algorithm);
    }
  }

  void bias_grad(const Conv2d& g, DType dtype, const void* dy, void* db) const { conv2d_bias_grad(g, dtype, dy, db, stream); }

 private:
  static std::logic_error not_here(Algorithm algorithm) {
    return std::logic_error(message("convlab: the table of algorithms lists number ", int64_t(algorithm), " for CUDA, but no kernel is wired to it"));
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
