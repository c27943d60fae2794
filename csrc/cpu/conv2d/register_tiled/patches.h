// wgrad of filters that lie side by side, as patch embeddings have them: 1 x 1 filters, whose pixels are patches of x.
#pragma once
#include "cpu/conv2d/register_tiled/register_tiled.h"
#include "cpu/conv2d/tap_tables.h"

namespace convlab::register_tiled {

// Elements of a patch that lie one behind another, and filters: with so many 1.0 to 1.8 times as fast, with fewer 0.4 to 1.1
constexpr int kLongRun = 16, kManyFilters = 64;

// What kernels see of a problem
struct View {
  Problem p;
  Strides x;
  Patches patches;
};

// Of patches where they pay
inline View view(const Problem& p) {
  View v{p, x_strides(p), {}};
  Conv2d& g = v.p.g;
  Strides& x = v.x;
  const bool side_by_side = meets_once(g) && g.R == g.stride_h && g.S == g.stride_w;
  if (p.pass != Pass::wgrad || g.groups > 1 || g.R * g.S == 1 || g.K < kManyFilters || !side_by_side) return v;
  Patches patches =
      p.layouts.output ? Patches{{g.R, g.S, g.C}, {x.h, x.w, x.c}} : Patches{{g.C, g.R, g.S}, {x.c, x.h, x.w}};
  auto& [count, step] = patches;
  if (step[1] == count[2] * step[2]) count[2] *= count[1], count[1] = 1;
  if (step[2] != 1 || count[2] < kLongRun || g.C * g.R * g.S < kManyChannels) return v;
  v.patches = patches;
  x = {x.n, 1, x.h * g.R, x.w * g.S};
  g.C *= g.R * g.S, g.H = g.P, g.W = g.Q, g.R = g.S = g.stride_h = g.stride_w = 1;
  return v;
}

}  // namespace convlab::register_tiled
