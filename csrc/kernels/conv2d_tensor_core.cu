// Convolution by tensor cores: implicit GEMM with mma.sync, fed by cp.async through swizzled shared memory.
#include "kernels/conv2d_tensor_core.h"

namespace convlab {
namespace {

void run(const TensorCoreCall& c) {
  switch (c.plan.precision) {
    case Precision::float16: return tensor_core_f16(c);
    case Precision::bfloat16: return tensor_core_bf16(c);
    case Precision::tf32: return tensor_core_tf32(c);
    default: return tensor_core_tf32x3(c);
  }
}

void forward(const Plan& plan, const Conv2d& g, DType dtype, const void* x, const void* w, const void* bias, void* y,
             void* workspace, Stream stream) {
  run({plan,
       {.pass = Pass::forward, .dtype = dtype, .g = g, .layouts = plan.layouts},
       x,
       w,
       y,
       nullptr,
       bias,
       workspace,
       stream});
}

void dgrad(const Plan& plan, const Conv2d& g, DType dtype, const void* dy, const void* w, void* dx, void* workspace,
           Stream stream) {
  run({plan,
       {.pass = Pass::dgrad, .dtype = dtype, .g = g, .layouts = plan.layouts},
       dy,
       w,
       dx,
       nullptr,
       nullptr,
       workspace,
       stream});
}

void wgrad(const Plan& plan, const Conv2d& g, DType dtype, const void* dy, const void* x, void* dw, void* db,
           void* workspace, Stream stream) {
  run({plan,
       {.pass = Pass::wgrad, .dtype = dtype, .g = g, .layouts = plan.layouts},
       dy,
       x,
       dw,
       db,
       nullptr,
       workspace,
       stream});
}

const ConvKernels conv2d_tensor_core(kTensorCore, forward, dgrad, wgrad);

}  // namespace
}  // namespace convlab
