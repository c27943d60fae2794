// The im2col_gemm rung as data: how many images it unrolls at a time, and how it launches.
#pragma once
#include "kernels/conv2d_gemm_plan.h"

namespace convlab {

// im2col_gemm unrolls as many images at a time as fit this many bytes: more than the 50 to 60 MB of a large GPU's
// L2 cache hold gains nothing, and less leaves a large GPU idle between launches.
constexpr long long kUnrolledBytes = 64LL << 20;

// Images that im2col_gemm takes at a time, and g for so many of them over their unrolled input.
inline int images_at_a_time(const Conv2d& g) {
  const long long image = (long long)g.C * g.R * g.S * g.P * g.Q * (long long)sizeof(float);
  return int(std::clamp(kUnrolledBytes / std::max(image, 1LL), 1LL, std::max((long long)g.N, 1LL)));
}

inline Conv2d unrolled_chunk(Conv2d g) {
  g.N = images_at_a_time(g);
  return pointwise(g);
}

inline Plan im2col_plan(Pass pass, DType, const Conv2d& g) {
  const Conv2d chunk = unrolled_chunk(g);
  Plan plan = gemm_plan(pass, chunk, kSharedTiles);
  plan.images = chunk.N;
  plan.workspace =
      plan.workspace * ceil_div(g.N, chunk.N) + (long long)chunk.N * chunk.C * g.P * g.Q * (long long)sizeof(float);
  return plan;
}

inline std::string im2col_refusal(Pass pass, DType dtype, const Conv2d& g) {
  if (dtype != DType::float32) return kFloat32Only;
  if ((long long)g.C * g.R * g.S > INT_MAX)
    return "unrolls into C R S rows, which are " + std::to_string((long long)g.C * g.R * g.S);
  return gemm_refusal(pass, unrolled_chunk(g), kSharedTiles);
}

inline constexpr Rung kIm2colGemm = {im2col_refusal, im2col_plan, nullptr};

}  // namespace convlab
