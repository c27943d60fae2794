// A CUDA rung's decisions about a problem, without CUDA: what it cannot do and why, how it would launch, and whether
// "auto" wants it. Each rung has them in its header (conv2d_tiled_plan.h and so on); the table in algorithms.cpp points
// to them.
#pragma once
#include <string>

#include "algorithms.h"
#include "kernels/plan.h"

namespace convlab {

struct Rung {
  // Why it cannot do a pass of g; empty when it can.
  std::string (*refusal)(Pass, DType, const Conv2d&);
  // How it does it. Only for what is not refused.
  Plan (*plan)(Pass, DType, const Conv2d&);
  // Whether it is worth its while: "auto" takes the highest rung that says so. Only for what is not refused; null:
  // never.
  bool (*best)(Pass, const Conv2d&);
};

// Elements that a pass stores; wgrad: in each slice.
inline long long outputs_of(Pass pass, const Conv2d& g) {
  if (pass == Pass::wgrad) return (long long)g.K * g.Cg() * g.R * g.S;
  return pass == Pass::forward ? (long long)g.N * g.K * g.P * g.Q : (long long)g.N * g.C * g.H * g.W;
}

inline bool always_best(Pass, const Conv2d&) { return true; }

}  // namespace convlab
