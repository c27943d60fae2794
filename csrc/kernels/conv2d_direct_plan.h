// The direct rung as data: it takes all that a grid has blocks for, a thread or (wgrad) a block an element.
#pragma once
#include <algorithm>

#include "kernels/rung.h"

namespace convlab {

constexpr int kDirectThreads = 256;  // eight warps: enough loads in flight on every architecture since sm_70

// In wgrad the threads of a block share the pixels of an image.
inline long long direct_blocks(Pass pass, const Conv2d& g) {
  return pass == Pass::wgrad ? outputs_of(pass, g) : ceil_div(outputs_of(pass, g), kDirectThreads);
}

// Windows that a block's threads have an element each for
constexpr int direct_windows(const Ending& e) { return kDirectThreads / (e.R * e.S); }
static_assert(kDirectThreads >= kMostTaps, "a block has a window at least");

inline bool direct_can(const Problem& p) { return grid_fits(direct_blocks(p.pass, p.g), 1, 1); }

inline std::string direct_why_not(const Problem& p) { return grid_refusal(direct_blocks(p.pass, p.g), 1, 1); }

inline Plan direct_plan(const Problem& p) {
  Plan plan;
  plan.threads = kDirectThreads;
  plan.grid[0] = unsigned(direct_blocks(p.pass, p.g));
  if (p.pass == Pass::forward) plan.epilogue = Epilogue::windows;
  const long long shared = p.pass == Pass::wgrad ? (long long)p.g.P * p.g.Q : outputs_of(p.pass, p.g);
  plan.useful = double(shared) / std::max(ceil_div(shared, kDirectThreads) * kDirectThreads, 1LL);
  return plan;
}

inline CudaRung kDirect{.can = direct_can, .why_not = direct_why_not, .plan = direct_plan, .best = always_best};

}  // namespace convlab
