// What "auto" may give to tensor cores on a GPU: written by `python -m tools.tensor_core_gate`, which `make gpu-report` runs,
// from a report that shows a pass right there, in that precision. By name the rung runs anyway.
#pragma once

namespace convlab {

// A bit a Pass, for each Precision: none, float16, bfloat16, tf32, 3xtf32; of the tensor_core rung and the warpgroup rung
constexpr unsigned kTensorCoreGate[] = {0, 7, 7, 7, 7};
constexpr unsigned kWarpgroupGate[] = {0, 7, 7, 7, 7};

}  // namespace convlab
