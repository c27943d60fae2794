// The register_tiled rung as data: which tiles it chooses among, and when there is enough to fill one.
#pragma once
#include <climits>

#include "kernels/conv2d_gemm_plan.h"

namespace convlab {

// A convolution whose filter covers the whole image is a plain matrix product: a 1 x 1 convolution of one pixel with
// C R S channels, the same elements in memory. As it was given, dgrad would visit R S taps for each element of dx, of
// which one contributes.
inline Conv2d without_places(const Conv2d& g) {
  const bool whole = g.P == 1 && g.Q == 1 && g.R == g.H && g.S == g.W && g.pad_h == 0 && g.pad_w == 0;
  return whole && (long long)g.C * g.R * g.S <= INT_MAX ? pointwise(g) : g;
}

inline Tiles register_tiles(Pass pass, DType dtype) {
  if (pass == Pass::wgrad) return dtype == DType::float32 ? all_of(kFilterTiles) : for_16_bits(kFilterTiles);
  return dtype == DType::float32 ? all_of(kImageTiles) : for_16_bits(kImageTiles);
}

inline bool register_tiled_can(const Problem& p) {
  return p.dtype != DType::float64 && gemm_can(p.pass, without_places(p.g), register_tiles(p.pass, p.dtype));
}

inline std::string register_tiled_why_not(const Problem& p) {
  if (p.dtype == DType::float64) return "is not compiled for float64";
  return gemm_why_not(p.pass, without_places(p.g), register_tiles(p.pass, p.dtype));
}

inline unsigned register_tiled_tiles(const Problem& p) {
  return tiles_that_fit(product_of(p.pass, without_places(p.g)), register_tiles(p.pass, p.dtype));
}

// tile: as gemm_plan has it
inline Plan register_tiled_plan_with(const Problem& p, int tile) {
  Plan plan = gemm_plan(p.pass, without_places(p.g), register_tiles(p.pass, p.dtype), p.multiprocessors, tile);
  constexpr double kOf16Bits = 1.4;  // as long as of float32
  if (bytes_of(p.dtype) == 2) plan.microseconds *= kOf16Bits;
  if (p.pass == Pass::forward) plan.epilogue = Epilogue::two_by_two;
  return plan;
}

inline Plan register_tiled_plan(const Problem& p) { return register_tiled_plan_with(p, 0); }

inline bool register_tiled_best(const Problem& p) {
  // A group is a product of its own. One with a smaller filter than this leaves its tiles empty: direct is faster on an
  // H200.
  constexpr long long kLeastFilter = 100;
  const Conv2d& g = p.g;
  return g.groups == 1 || (long long)g.Kg() * g.Cg() * g.R * g.S >= kLeastFilter;
}

inline CudaRung kRegisterTiled{.can = register_tiled_can,
                               .why_not = register_tiled_why_not,
                               .plan = register_tiled_plan,
                               .best = register_tiled_best};

}  // namespace convlab
