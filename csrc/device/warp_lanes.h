// How many lanes a warp has, for code of the host as well.
#pragma once

namespace convlab {

constexpr int kWarpLanes = 32;

}  // namespace convlab
