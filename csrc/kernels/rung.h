// What the plans of CUDA's rungs (conv2d_tiled_plan.h and so on) have in common: decisions about a problem without CUDA.
#pragma once
#include <string>

#include "algorithms.h"
#include "kernels/plan.h"

namespace convlab {

// Elements that a pass stores; wgrad: in each slice.
inline long long outputs_of(Pass pass, const Conv2d& g) {
  if (pass == Pass::wgrad) return (long long)g.K * g.Cg() * g.R * g.S;
  return pass == Pass::forward ? (long long)g.N * g.K * g.P * g.Q : (long long)g.N * g.C * g.H * g.W;
}

}  // namespace convlab
