// The implicit_gemm rung as data.
#pragma once
#include "kernels/conv2d_gemm_plan.h"

namespace convlab {

inline std::string implicit_gemm_refusal(Pass pass, DType dtype, const Conv2d& g) {
  return dtype == DType::float32 ? gemm_refusal(pass, g, kSharedTiles) : kFloat32Only;
}

inline Plan implicit_gemm_plan(Pass pass, DType, const Conv2d& g) { return gemm_plan(pass, g, kSharedTiles); }

inline constexpr Rung kImplicitGemm = {implicit_gemm_refusal, implicit_gemm_plan, nullptr};

}  // namespace convlab
