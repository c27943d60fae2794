// The ladder's decisions about a problem: what each rung cannot do and why, how it would launch, and which one "auto" takes.
#pragma once
#include <string>

#include "../algorithms.h"
#include "plan.h"

namespace convlab {

// Why a CUDA algorithm cannot do a pass of g; empty when it can.
std::string cuda_refusal(Algorithm, Pass, DType, const Conv2d&);

// How it does it. Only for what is not refused.
Plan cuda_plan(Algorithm, Pass, DType, const Conv2d&);

// What "auto" takes.
Algorithm cuda_choice(Pass, DType, const Conv2d&);

}  // namespace convlab
