// How fast this machine multiplies and adds: for the benchmark's ceilings.
#pragma once
#include "cpu/stub.h"

namespace convlab {

CONVLAB_KERNEL(multiply_add, double(int64_t steps));  // returns how many floating-point operations that were

}  // namespace convlab
