// Convolution, tensor cores: implicit GEMM with mma.sync, its tiles brought to shared memory by cp.async.
//
// What it does    a warp multiplies 16 x 8 tiles of float16, bfloat16 or tf32 with one instruction, 128 of them for each
//                 128-byte step of the sum where its tile is large. Three tiles of A and B are on their way or in use at a
//                 time, and never pass through registers (tensor_core_tile.h). Laid out anew first are filters, if they do not lie
//                 channels_last, and activations whose channels do not lie in chunks of 16 bytes; of float32 not where
//                 single elements cost less (conv2d_tensor_core_plan.h).
// Against register_tiled  one instruction for 1024 or 2048 multiply-adds of a warp instead of 32.
// What bounds it  the tensor cores, as far as mma.sync feeds them on sm_80; on sm_90 that is 63 % or so of their peak. A
//                 block's start and its end, before the first product and behind the last, take long beside short sums.
// What is next    on sm_90 conv2d_warpgroup.cu; wgrad by wgmma, too; and TMA, which unrolls while it copies.
// What is counted  by the simulator; tools/kernel_notes.py writes it here, and says how to read it
//                              x      w     dy   workspace   sectors   at least   conflicts   shared
//   LeNet C3    forward     12.8   1.00               1.36      7.10       4.79        1.02     2.68
//   LeNet C3    dgrad              1.00   1.00        17.2      7.39       7.24        1.01     7.40
//   LeNet C3    wgrad       12.8          3.00        0.68      7.01       4.78        1.00     3.67
//   ResNet-20   forward     1.00   1.00               4.76      13.3       9.26        1.01     0.70
//   ResNet-20   dgrad              1.00   1.00        4.76      13.3       9.26        1.01     0.70
//   ResNet-20   wgrad       8.27          5.00        0.72      7.82       5.30        1.00     1.52
#include "kernels/conv2d_tensor_core.h"

#include "device/capability.h"

namespace convlab {
namespace {

constexpr int kLeastCapability = 8;  // mma.sync of bfloat16 and tf32, and cp.async

void run(const TensorCoreCall& c) {
  if (const int major = capability_major(); major < kLeastCapability)
    throw std::runtime_error(
        "convlab: algo 'tensor_core' has instructions of compute capability 8.0, and this GPU is of " +
        std::to_string(major) + ".x; algo='auto' or 'register_tiled' runs on it");
  multiply_on_tensor_cores(c);
}

Problem problem_of(const Plan& plan, Pass pass, DType dtype, const Conv2d& g) {
  return {.pass = pass,
          .dtype = dtype,
          .g = g,
          .layouts = plan.layouts,
          .rounding = plan.precision == Precision::tf32 ? Rounding::tf32 : Rounding::usual};
}

void forward(const Plan& plan, const Conv2d& g, DType dtype, const void* x, const void* w, const void* bias, void* y,
             void* workspace, Stream stream) {
  run({plan, problem_of(plan, Pass::forward, dtype, g), x, w, y, nullptr, bias, workspace, stream});
}

void dgrad(const Plan& plan, const Conv2d& g, DType dtype, const void* dy, const void* w, void* dx, void* workspace,
           Stream stream) {
  run({plan, problem_of(plan, Pass::dgrad, dtype, g), dy, w, dx, nullptr, nullptr, workspace, stream});
}

void wgrad(const Plan& plan, const Conv2d& g, DType dtype, const void* dy, const void* x, void* dw, void* db,
           void* workspace, Stream stream) {
  run({plan, problem_of(plan, Pass::wgrad, dtype, g), dy, x, dw, db, nullptr, workspace, stream});
}

const ConvKernels conv2d_tensor_core(kTensorCore, forward, dgrad, wgrad);

}  // namespace

void multiply_on_tensor_cores(const TensorCoreCall& c) {
  switch (c.plan.precision) {
    case Precision::float16: return TensorCorePasses<Float16Products>::run(c);
    case Precision::bfloat16: return TensorCorePasses<BFloat16Products>::run(c);
    default: return multiply_float32_on_tensor_cores(c);
  }
}

}  // namespace convlab
