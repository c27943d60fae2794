// Convolution, tensor cores: implicit GEMM with wgmma, its tiles brought to shared memory by cp.async.
//
// What it does    four warps multiply 64 rows by all columns of a tile with one instruction, which reads both out of shared
//                 memory and goes on by itself, while the warps start the copies of another tile (warpgroup_tile.h).
//                 Tensors are taken as by tensor_core, and float32 laid out anew where it is not channels_last. wgrad, whose
//                 rows and columns lie side by side, has loops of its own: of 16-bit elements, which the instruction takes so
//                 (warpgroup_filter_tile.h), and of TF32, which it does not (warpgroup_filter_tf32.h).
// Against tensor_core  no operand passes through registers, and no warp waits for a product: the rate of the tensor cores
//                 is 1.6 times what mma.sync reaches on them.
// What bounds it  shared memory, which passes each tile on its way in and, of A, again for each 256 columns, of B for each
//                 64 rows; then L2.
// Strict float32  three products of TF32 numbers, of which A's are split in registers, whence wgmma takes them, and B's beside
//                 its tile in shared memory; each 16 steps are summed by themselves (warpgroup_tf32x3.h).
// What is next    TMA, which copies without threads and to several blocks at once; and one tile of x for taps that share it.
// What is counted  by the simulator; tools/kernel_notes.py writes it here, and says how to read it
//                              x      w     dy   workspace   sectors   at least   conflicts   shared
//   LeNet C3    forward     1.00   1.00               9.35      9.14       8.19        1.01     2.92
//   LeNet C3    dgrad              1.00   1.00        17.2      7.39       7.24        1.01     8.75
//   LeNet C3    wgrad       1.00          1.00        13.9      8.52       7.95        1.00     3.41
//   ResNet-20   forward     1.00   1.00               4.76      13.3       9.23        1.01     0.82
//   ResNet-20   dgrad              1.00   1.00        4.76      13.3       9.23        1.01     0.82
//   ResNet-20   wgrad       1.00          1.00        7.53      10.6       8.11        1.01     1.06
#include "kernels/conv2d_warpgroup_plan.h"

#include "kernels/conv2d_tensor_core.h"
#if !defined(CONVLAB_NO_WARPGROUPS)
#include "kernels/warpgroup_tile.h"
#endif

namespace convlab {
namespace {

constexpr int kLast = warpgroup_tiles_of(Precision::tf32).last;  // whose tiles are 16 bits', too

#if !defined(CONVLAB_NO_WARPGROUPS)
// Tiles i to `last`
template <int i, int last, class T> void multiply(const TensorCoreCall& c, const ImageMap<T, true>& map) {
  if constexpr (i <= last) {
    if (c.plan.variant != i) return multiply<i + 1, last>(c, map);
    constexpr WarpgroupTileShape t = kWarpgroupTiles[i];
    constexpr int K = kTensorStepBytes / int(sizeof(T));
    using Tile = std::conditional_t<t.splits, SplitTile<t.M, t.N, K, t.depth, t.pending, t.blocks>,
                                    WarpgroupTile<t.M, t.N, K, t.depth, t.pending, t.blocks>>;
    launch(warpgroup_kernel<T, Tile, ImageMap<T, true>>, dim3(c.plan.grid[0], c.plan.grid[1], c.plan.grid[2]),
           dim3(c.plan.threads), size_t(c.plan.shared), c.stream, map,
           c.plan.grid[2] == 1 ? map.part(0) : typename ImageMap<T, true>::Part{});
  }
}
#else
bool never(const Problem&) { return false; }
std::string not_in_this_build(const Problem&) {
  return "is not in this build, which has no code for compute capability 9.0 (TORCH_CUDA_ARCH_LIST)";
}
[[maybe_unused]] const bool refuses = (kWarpgroup.can = never, kWarpgroup.why_not = not_in_this_build, true);

template <int, int, class T> void multiply(const TensorCoreCall&, const ImageMap<T, true>&) {
  throw std::logic_error("convlab: a kernel that is not compiled");
}
#endif

void run(TensorCoreCall c) {
  c.warpgroups = true;
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

const ConvKernels conv2d_warpgroup(kWarpgroup, forward, dgrad, wgrad);

}  // namespace

void multiply_by_warpgroups(const TensorCoreCall& c, const ImageMap<float16, true>& map) { multiply<0, kLast>(c, map); }
void multiply_by_warpgroups(const TensorCoreCall& c, const ImageMap<bfloat16, true>& map) {
  multiply<0, kLast>(c, map);
}
void multiply_by_warpgroups(const TensorCoreCall& c, const ImageMap<float, true>& map) {
  if (c.plan.precision == Precision::tf32) multiply<0, kLast>(c, map);
  else multiply<kLast + 1, kWarpgroupTileCount - 1>(c, map);
}

}  // namespace convlab
