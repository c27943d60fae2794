// Convolution, implicit GEMM: the unrolled matrix of im2col exists only in the tiles that a block is about to multiply.
//
// What it does    a block of 256 threads makes 16 x 16 outputs of the matrix product (conv2d_as_gemm.h says of which),
//                 a thread one. Tiles of 16 steps of both operands go through shared memory (gemm.h), unrolled while
//                 they are loaded.
// Against im2col_gemm  no workspace, and not R S times the input's bytes written and read again.
// What bounds it  shared-memory loads: two for each multiply-add.
// What is next    several outputs a thread, so that what it loads from shared memory is used several times.
// What is counted  by the simulator; tools/kernel_notes.py writes it here, and says how to read it
//                              x      w     dy   workspace   sectors   at least   conflicts   shared
//   LeNet C3    forward     12.8    200                         4.69       3.53        1.05     12.6
//   LeNet C3    dgrad              1045   25.0                  3.65       2.45        1.05     60.0
//   LeNet C3    wgrad       13.6          10.0        0.68      4.56       3.58        1.05     12.2
//   ResNet-20   forward     16.5   16.0                         3.34       3.34        1.05     11.6
//   ResNet-20   dgrad              16.0   16.5                  4.88       3.34        1.05     11.8
//   ResNet-20   wgrad       16.5          18.0                  3.34       3.34        1.05     11.4
#include "kernels/conv2d_gemm_launch.h"
#include "kernels/conv2d_implicit_gemm_plan.h"
#include "kernels/tile_shapes.h"

namespace convlab {
namespace {

using SharedTile = Tile<kSharedTile.M, kSharedTile.N, kSharedTile.K, kSharedTile.rows, kSharedTile.columns>;

void forward(const Plan& plan, const Conv2d& g, DType, const void* x, const void* w, const void* bias, void* y, void*,
             Stream stream) {
  launch_gemm_forward<SharedTile, float>(plan, g, x, w, bias, y, stream);
}

void dgrad(const Plan& plan, const Conv2d& g, DType, const void* dy, const void* w, void* dx, void*, Stream stream) {
  launch_gemm_dgrad<SharedTile, float>(plan, g, dy, w, dx, stream);
}

void wgrad(const Plan& plan, const Conv2d& g, DType, const void* dy, const void* x, void* dw, void* db, void* workspace,
           Stream stream) {
  launch_gemm_wgrad<SharedTile, float>(plan, g, dy, x, dw, db, workspace, stream);
}

const ConvKernels conv2d_implicit_gemm(kImplicitGemm, forward, dgrad, wgrad);

}  // namespace
}  // namespace convlab
