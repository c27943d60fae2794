// Convolution, joint register and shared-memory tiling: implicit GEMM with up to 8 x 16 outputs a thread.
//
// What it does    a thread keeps a tile of sums in registers. A step of the product loads 8 + 16 floats from shared
//                 memory, 16 bytes an instruction, and makes 128 multiply-adds of them; loads from device memory for
//                 the next tile are under way meanwhile. The tile is chosen by the shape of the product (tile_shapes.h,
//                 conv2d_gemm_plan.h). Four neighbouring outputs are stored with one instruction where they lie side by
//                 side.
// Against implicit_gemm  a fifth of a shared-memory load for each multiply-add instead of two, and an eighth of the
//                        global loads.
// What bounds it  issue slots: six of seven instructions of the largest tile's loop are multiply-adds, of 64 x 64 two
//                 of three.
// What is next    asynchronous copies past the registers, so that more loads are under way, and tensor cores.
// What is counted  by the simulator; tools/kernel_notes.py writes it here, and says how to read it
//                              x      w     dy   workspace   sectors   at least   conflicts   shared
//   LeNet C3    forward     12.8   25.0                         6.74       4.27        1.00     3.68
//   LeNet C3    dgrad               131   25.0                  3.35       2.63        1.00     18.2
//   LeNet C3    wgrad       13.6          5.00        0.68      4.66       3.07        1.00     4.07
//   ResNet-20   forward     16.5   2.00                         4.00       4.00        1.00     3.57
//   ResNet-20   dgrad              2.00   16.5                  4.46       4.00        1.00     3.58
//   ResNet-20   wgrad       16.5          9.00        0.72      3.62       3.24        1.00     3.70
#include "kernels/conv2d_gemm_launch.h"
#include "kernels/conv2d_register_tiled_plan.h"

namespace convlab {
namespace {

// Calls f(type_tag<Tile>{}, type_tag<T>{}) with the tile of the plan.
template <const auto& shapes, int i = 0, class F> void dispatch_tile(const Plan& plan, DType dtype, const F& f) {
  constexpr int kCount = sizeof shapes / sizeof shapes[0];
  if (plan.variant != i) {
    if constexpr (i + 1 < kCount) dispatch_tile<shapes, i + 1>(plan, dtype, f);
    return;
  }
  constexpr TileShape shape = shapes[i];
  const type_tag<Tile<shape.M, shape.N, shape.K, shape.rows, shape.columns>> tile;
  if constexpr (i >= for_16_bits(shapes).first) {
    if (dtype == DType::float16) return f(tile, type_tag<float16>{});
    if (dtype == DType::bfloat16) return f(tile, type_tag<bfloat16>{});
  }
  f(tile, type_tag<float>{});
}

void forward(const Plan& plan, const Conv2d& g, DType dtype, const void* x, const void* w, const void* bias, void* y,
             void*, Stream stream) {
  dispatch_tile<kImageTiles>(plan, dtype, [&](auto tile, auto element) {
    launch_gemm_forward<typename decltype(tile)::type, typename decltype(element)::type>(plan, without_places(g), x, w,
                                                                                         bias, y, stream);
  });
}

void dgrad(const Plan& plan, const Conv2d& g, DType dtype, const void* dy, const void* w, void* dx, void*,
           Stream stream) {
  dispatch_tile<kImageTiles>(plan, dtype, [&](auto tile, auto element) {
    launch_gemm_dgrad<typename decltype(tile)::type, typename decltype(element)::type>(plan, without_places(g), dy, w,
                                                                                       dx, stream);
  });
}

void wgrad(const Plan& plan, const Conv2d& g, DType dtype, const void* dy, const void* x, void* dw, void* db,
           void* workspace, Stream stream) {
  dispatch_tile<kFilterTiles>(plan, dtype, [&](auto tile, auto element) {
    launch_gemm_wgrad<typename decltype(tile)::type, typename decltype(element)::type>(plan, without_places(g), dy, x,
                                                                                       dw, db, workspace, stream);
  });
}

const ConvKernels conv2d_register_tiled(kRegisterTiled, forward, dgrad, wgrad);

}  // namespace
}  // namespace convlab
