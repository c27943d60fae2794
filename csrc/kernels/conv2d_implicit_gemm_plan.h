// The implicit_gemm rung as data.
#pragma once
#include "kernels/conv2d_gemm_plan.h"

namespace convlab {

inline bool implicit_gemm_can(const Problem& p) {
  return p.dtype == DType::float32 && gemm_can(p.pass, p.g, kSharedTiles);
}

inline std::string implicit_gemm_why_not(const Problem& p) {
  return p.dtype == DType::float32 ? gemm_why_not(p.pass, p.g, kSharedTiles) : kFloat32Only;
}

inline Plan implicit_gemm_plan(const Problem& p) { return gemm_plan(p.pass, p.g, kSharedTiles, p.multiprocessors); }

inline CudaRung kImplicitGemm{
    .can = implicit_gemm_can, .why_not = implicit_gemm_why_not, .plan = implicit_gemm_plan, .best = nullptr};

}  // namespace convlab
