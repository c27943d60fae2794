// The register_tiled rung as data: which tiles it chooses among, and when there is enough to fill one.
#pragma once
#include "conv2d_gemm_plan.h"

namespace convlab {

inline Tiles register_tiles(Pass pass, DType dtype) {
  return {pass == Pass::wgrad ? kFilterTiles : kImageTiles, dtype == DType::float32 ? 0 : kFirst16BitTile, kTiles};
}

inline std::string register_tiled_refusal(Pass pass, DType dtype, const Conv2d& g) {
  if (dtype == DType::float64) return "is not compiled for float64";
  return gemm_refusal(pass, g, register_tiles(pass, dtype));
}

inline Plan register_tiled_plan(Pass pass, DType dtype, const Conv2d& g) { return gemm_plan(pass, g, register_tiles(pass, dtype)); }

inline bool register_tiled_best(Pass pass, const Conv2d& g) {
  // A tile has sixteen rows or more; with fewer than this many channels in them, most of it would be waste.
  constexpr int kLeastRows = 4;
  const Product p = product_of(pass, g);
  return p.rows >= kLeastRows && (pass != Pass::wgrad || p.columns >= kLeastRows);
}

inline constexpr Rung kRegisterTiled = {register_tiled_refusal, register_tiled_plan, register_tiled_best};

}  // namespace convlab
