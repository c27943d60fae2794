// The reference algorithm: it can do all, decides nothing, and "auto" never takes it.
#pragma once
#include "cpu/conv2d/cpu_rung.h"

namespace convlab::reference {

inline CpuPlan plan(const Problem&) { return {}; }

inline CpuRung rung{.can = can_all, .why_not = no_reason, .plan = plan, .best = nullptr};

}  // namespace convlab::reference
