// What "auto" takes on the CPU. Measured with `python -m convlab.bench cpu conv --algo ...` on two AVX-512 cores.
// Torch-free.
#pragma once
#include "algorithms.h"

namespace convlab {

constexpr int kNarrow =
    12;  // target channels a group: fewer waste too many of the sixteen lanes that register_tiled gives them
constexpr int kShallow =
    4;  // source channels a group: fewer make loops too short to pay for a tile of register_tiled, and for
// transposing its target where that lies NCHW
constexpr int kLarge = 25;  // taps: so many share what it costs `direct` to turn dy's rows

// Why the CPU's `id` cannot do this; empty when it can. register_tiled keeps offsets within an image in 32 bits.
inline std::string cpu_refusal(Algorithm id, const Conv2d& g) {
  if (id == Algorithm::register_tiled && (int64_t(g.C) * g.H * g.W > INT32_MAX || int64_t(g.K) * g.P * g.Q > INT32_MAX))
    return "takes images of up to 2^31 - 1 elements";
  if (id == Algorithm::depthwise && (g.groups != g.C || g.K != g.C))
    return "has one input and one output channel a group, and " + std::to_string(g.groups) + " group(s) of " +
           std::to_string(g.C) + " input and " + std::to_string(g.K) + " output channels have " +
           std::to_string(g.Cg()) + " and " + std::to_string(g.Kg());
  return "";
}

inline Algorithm cpu_choice(Pass pass, const Conv2d& g, bool channels_last) {
  const int width = pass == Pass::dgrad ? g.Cg() : g.Kg(), depth = pass == Pass::dgrad ? g.Kg() : g.Cg();
  if (g.groups > 1 && cpu_refusal(Algorithm::depthwise, g).empty()) return Algorithm::depthwise;
  if (width < kNarrow || !cpu_refusal(Algorithm::register_tiled, g).empty()) return Algorithm::direct;
  if (channels_last)
    return pass == Pass::wgrad && depth <= kShallow && g.R * g.S >= kLarge ? Algorithm::direct
                                                                           : Algorithm::register_tiled;
  // `direct` reads and writes planes where they lie if filters are 1 x 1
  const bool pointwise =
      g.R == 1 && g.S == 1 && g.stride_h == 1 && g.stride_w == 1 && g.pad_h == 0 && g.pad_w == 0 && g.H * g.W % 16 == 0;
  return depth <= kShallow || (pointwise && pass != Pass::wgrad) ? Algorithm::direct : Algorithm::register_tiled;
}

}  // namespace convlab
