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

inline Plan im2col_plan(const Problem& p) {
  const Conv2d &g = p.g, chunk = unrolled_chunk(g);
  Plan plan = gemm_plan(p.pass, chunk, kSharedTiles, p.multiprocessors);
  plan.images = chunk.N;
  plan.workspace =
      plan.workspace * ceil_div(g.N, chunk.N) + (long long)chunk.N * chunk.C * g.P * g.Q * (long long)sizeof(float);
  return plan;
}

inline long long unrolled_rows(const Conv2d& g) { return (long long)g.C * g.R * g.S; }

inline bool im2col_can(const Problem& p) {
  return p.dtype == DType::float32 && unrolled_rows(p.g) <= INT_MAX &&
         gemm_can(p.pass, unrolled_chunk(p.g), kSharedTiles);
}

inline std::string im2col_why_not(const Problem& p) {
  if (p.dtype != DType::float32) return kFloat32Only;
  if (unrolled_rows(p.g) > INT_MAX) return "unrolls into C R S rows, which are " + std::to_string(unrolled_rows(p.g));
  return gemm_why_not(p.pass, unrolled_chunk(p.g), kSharedTiles);
}

inline CudaRung kIm2colGemm{.can = im2col_can, .why_not = im2col_why_not, .plan = im2col_plan, .best = nullptr};

}  // namespace convlab
