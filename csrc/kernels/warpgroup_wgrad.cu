// conv2d_warpgroup.cu's wgrad: compiled by itself, side by side with the others.
#include "kernels/conv2d_tensor_core.h"
#include "kernels/conv2d_warpgroup_plan.h"
#if !defined(CONVLAB_NO_WARPGROUPS)
#include "kernels/warpgroup_filter_tf32.h"
#include "kernels/warpgroup_filter_tile.h"
#endif

namespace convlab {
namespace {

constexpr TensorTiles kOf16Bits = wgrad_tiles(Precision::float16), kOfTf32 = wgrad_tiles(Precision::tf32);
constexpr TensorTiles kOfStrict = wgrad_tiles(Precision::tf32x3);

#if !defined(CONVLAB_NO_WARPGROUPS)
template <int i, int last, class T> void multiply(const TensorCoreCall& c, const FilterMap<T, true>& map) {
  if constexpr (i <= last) {
    if (c.plan.variant != i) return multiply<i + 1, last>(c, map);
    constexpr WgradTileShape t = kWgradTiles[i];
    using Tile = WgradTile<t.M, t.N, kTensorStepBytes / int(sizeof(T)), t.depth, t.pending, t.blocks, t.splits>;
    const auto start = [&](auto kernel) {
      launch(kernel, dim3(c.plan.grid[0], c.plan.grid[1], c.plan.grid[2]), dim3(c.plan.threads), size_t(c.plan.shared),
             c.stream, map);
    };
    if constexpr (sizeof(T) == 4) start(warpgroup_filter_tf32_kernel<Tile, FilterMap<T, true>>);
    else start(warpgroup_filter_kernel<T, Tile, FilterMap<T, true>>);
  }
}
#else
template <int, int, class T> void multiply(const TensorCoreCall&, const FilterMap<T, true>&) {
  throw std::logic_error("convlab: a kernel that is not compiled");
}
#endif

}  // namespace

void multiply_by_warpgroups(const TensorCoreCall& c, const FilterMap<float16, true>& map) {
  multiply<kOf16Bits.first, kOf16Bits.last>(c, map);
}
void multiply_by_warpgroups(const TensorCoreCall& c, const FilterMap<bfloat16, true>& map) {
  multiply<kOf16Bits.first, kOf16Bits.last>(c, map);
}
void multiply_by_warpgroups(const TensorCoreCall& c, const FilterMap<float, true>& map) {
  if (c.plan.precision == Precision::tf32) multiply<kOfTf32.first, kOfTf32.last>(c, map);
  else multiply<kOfStrict.first, kOfStrict.last>(c, map);
}

}  // namespace convlab
