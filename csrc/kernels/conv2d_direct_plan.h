// The direct rung as data: it takes all that a grid has blocks for, a thread or (wgrad) a block an element.
#pragma once
#include <algorithm>
#include <stdexcept>

#include "kernels/rung.h"

namespace convlab {

constexpr int kDirectThreads = 256;  // eight warps: enough loads in flight on every architecture since sm_70

// In wgrad the threads of a block share the pixels of an image.
inline long long direct_blocks(Pass pass, const Conv2d& g) {
  return pass == Pass::wgrad ? outputs_of(pass, g) : ceil_div(outputs_of(pass, g), kDirectThreads);
}

inline std::string direct_refusal(Pass pass, DType, const Conv2d& g) {
  return grid_refusal(direct_blocks(pass, g), 1, 1);
}

inline Plan direct_plan(Pass pass, DType dtype, const Conv2d& g) {
  const std::string why = direct_refusal(pass, dtype, g);  // "auto" comes here without having asked
  if (!why.empty()) throw std::invalid_argument("conv2d: no algorithm can do this: 'direct' " + why);
  Plan plan;
  plan.threads = kDirectThreads;
  plan.grid[0] = unsigned(direct_blocks(pass, g));
  const long long shared = pass == Pass::wgrad ? (long long)g.P * g.Q : outputs_of(pass, g);
  plan.useful = double(shared) / std::max(ceil_div(shared, kDirectThreads) * kDirectThreads, 1LL);
  return plan;
}

inline constexpr Rung kDirect = {direct_refusal, direct_plan, always_best};

}  // namespace convlab
