// Launching the maps of conv2d_as_mma.h: what the files that compile them share.
#pragma once
#include "kernels/add_slices.h"
#include "kernels/conv2d_as_mma.h"
#include "kernels/conv2d_tensor_core_plan.h"
#include "kernels/fill.h"
#include "kernels/launchers.h"
#include "kernels/layout.h"
#include "kernels/positions_inner.h"

namespace convlab {

// A pass's tensors; `add`: bias in forward, db in wgrad, where either may be null.
struct TensorCoreCall {
  const Plan& plan;
  const Problem& problem;
  const void *first, *second;
  void *output, *bias_gradient;
  const void* bias;
  void* workspace;
  Stream stream;
  bool warpgroups = false;  // the main loop is that of the warpgroup rung, of whose tiles the plan has one
};

// In the plan's precision. conv2d_tensor_core.cu, and of float32 tensor_core_float32.cu
void multiply_on_tensor_cores(const TensorCoreCall&);
void multiply_float32_on_tensor_cores(const TensorCoreCall&);

// conv2d_warpgroup.cu
void multiply_by_warpgroups(const TensorCoreCall&, const ImageMap<float16, true>&);
void multiply_by_warpgroups(const TensorCoreCall&, const ImageMap<bfloat16, true>&);
void multiply_by_warpgroups(const TensorCoreCall&, const ImageMap<float, true>&);

// warpgroup_wgrad.cu
void multiply_by_warpgroups(const TensorCoreCall&, const FilterMap<float16, true>&);
void multiply_by_warpgroups(const TensorCoreCall&, const FilterMap<bfloat16, true>&);
void multiply_by_warpgroups(const TensorCoreCall&, const FilterMap<float, true>&);

// Calls f(type_tag<Tile>{}) with the tile of the plan, one of `i` to `last`.
template <int i, int last, class T, class F> void dispatch_tensor_tile(const Plan& plan, const F& f) {
  if constexpr (i <= last) {
    if (plan.variant != i) return dispatch_tensor_tile<i + 1, last, T>(plan, f);
    constexpr TensorTile t = kTensorTiles[i];
    f(type_tag<WarpTile<t.M, t.N, kTensorStepBytes / int(sizeof(T)), t.warp_m, t.warp_n, t.depth, t.blocks>>{});
  }
}

template <class Products> struct TensorCorePasses {
  using T = typename Products::Element;
  template <class Map> static void multiply(const TensorCoreCall& c, const Map& map) {
    if constexpr (std::is_same_v<Map, ImageMap<T, true>> || std::is_same_v<Map, FilterMap<T, true>>)
      if (c.warpgroups) return multiply_by_warpgroups(c, map);
    constexpr TensorTiles kTiles = tensor_tiles(Products::kPromotes, Map::Part::kBAsA);
    dispatch_tensor_tile<kTiles.first, kTiles.last, T>(c.plan, [&](auto tile) {
      launch(tensor_core_kernel<Products, typename decltype(tile)::type, Map>,
             dim3(c.plan.grid[0], c.plan.grid[1], c.plan.grid[2]), dim3(c.plan.threads), size_t(c.plan.shared),
             c.stream, map);
    });
  }

  // The operand where the kernels find it, and how it lies there. `at` moves past its copy in the workspace.
  static const T* taken(const TensorCoreCall& c, const TensorOperand& o, const void* from, int channels,
                        long long pixels, bool channels_last, Pitches& pitches, char*& at) {
    const Conv2d& g = c.problem.g;
    pitches = pitches_of(channels, pixels, channels_last || o.channels_last);
    if (!o.copied) return static_cast<const T*>(from);
    T* to = reinterpret_cast<T*>(at);
    at += o.bytes;
    const int depths = g.groups * o.depth;
    if (depths == channels && !channels_last) {
      change_layout(sizeof(T), g.N, channels, pixels, true, from, to, c.stream);
      return to;
    }
    pitches = pitches_of(depths, pixels, true);
    const auto grid_of = [](long long n) { return unsigned(std::clamp(n, 1LL, (long long)kGridYZ)); };
    launch(
        chunks_kernel<T>,
        dim3(unsigned(ceil_div(pixels, kLayoutThreads)), grid_of(depths * int(sizeof(T)) / kChunkBytes), grid_of(g.N)),
        dim3(kLayoutThreads), 0, c.stream, g.N, g.groups, channels / g.groups, o.depth, pixels,
        pitches_of(channels, pixels, channels_last), static_cast<const T*>(from), to);
    return to;
  }

  // dy of TF32 as the warpgroup rung's wgrad takes it
  static const T* positions_inner(const TensorCoreCall& c, const TensorOperand& o, Pitches& pitches, char*& at) {
    T* const to = reinterpret_cast<T*>(at);
    if constexpr (sizeof(T) == 4) {
      const Conv2d& g = c.problem.g;
      const long long pixels = (long long)g.P * g.Q, positions = g.N * pixels;
      const long long pitch = up_to(positions, kChunkBytes / int(sizeof(T)));
      const bool channels_last = c.problem.layouts.first || pixels == 1;
      launch(channels_last ? positions_inner_kernel<true> : positions_inner_kernel<false>,
             dim3(unsigned(std::max(ceil_div(pitch, kTransposed), 1LL)),  // of no images, too
                  unsigned(std::min(ceil_div(g.K, kTransposed), (long long)kGridYZ))),
             dim3(kLayoutThreads), 0, c.stream, g.K, pixels, positions, pitch, static_cast<const float*>(c.first), to,
             c.plan.precision == Precision::tf32x3 ? to + g.K * pitch : nullptr);
      pitches = {pixels, pitch, 1};
    }
    at += o.bytes;
    return to;
  }

  // The filter as ImageMap takes it
  static void lay_out_filter(const TensorCoreCall& c, const TensorLayout& l, bool dgrad, int depth, T* to) {
    using Rounding = std::conditional_t<std::is_same_v<Products, Tf32Products>, ToTf32, AsItIs>;
    const Conv2d& g = c.problem.g;
    const T* from = static_cast<const T*>(c.second);
    const int pitch = int(l.filter_pitch), taps = g.R * g.S;
    const bool channels_last = c.problem.layouts.second || taps == 1;
    if (l.joined)
      launch(joined_filter_kernel<T, Rounding>,
             dim3(unsigned(l.filter_lines), unsigned(ceil_div(depth, kLayoutThreads))), dim3(kLayoutThreads), 0,
             c.stream, g, channels_last, depth, pitch, from, to);
    else if (dgrad && channels_last)
      launch(filter_transposed_kernel<T, Rounding>,
             dim3(unsigned(ceil_div(g.Cg(), kTransposed) * g.groups * taps), unsigned(ceil_div(depth, kTransposed))),
             dim3(kLayoutThreads), 0, c.stream, g, depth, pitch, from, to);
    else
      launch(filter_kernel<T, Rounding>, dim3(unsigned(l.filter_lines), unsigned(ceil_div(depth, kLayoutThreads))),
             dim3(kLayoutThreads), 0, c.stream, g, dgrad, channels_last, depth, pitch, from, to);
  }

  template <bool kChannelsLast> static void image(const TensorCoreCall& c, const TensorLayout& l, bool dgrad) {
    const Conv2d& g = c.problem.g;
    const Layouts& lie = c.problem.layouts;
    char* at = static_cast<char*>(c.workspace);
    ImageMap<T, kChannelsLast> map{};
    map.g = g, map.dgrad = dgrad, map.joined = l.joined;
    const long long inputs = (long long)g.H * g.W, outputs = (long long)g.P * g.Q;
    map.input = taken(c, l.first, c.first, dgrad ? g.K : g.C, dgrad ? outputs : inputs, lie.first, map.in, at);
    T* filter = reinterpret_cast<T*>(at);
    map.filter = l.filter_lies ? static_cast<const T*>(c.second) : filter;
    map.bias = static_cast<const T*>(c.bias), map.output = static_cast<T*>(c.output);
    map.depth = l.first.depth, map.filter_pitch = int(l.filter_pitch), map.by_depth = Divisor(std::max(map.depth, 1));
    const int out_channels = dgrad ? g.C : g.K;
    map.out = pitches_of(out_channels, dgrad ? inputs : outputs, lie.output);
    map.wide = l.first.wide;
    map.set_parts();
    map.fours = map.out.channel == 1 && map.class_columns % 4 == 0;
    if (!l.filter_lies) lay_out_filter(c, l, dgrad, map.depth, filter);
    if (dgrad && classes_of(g) < g.stride_h * g.stride_w)
      fill_with_zeros((long long)g.N * g.C * g.H * g.W, map.output, c.stream);
    multiply(c, map);
  }

  template <bool kChannelsLast> static void wgrad(const TensorCoreCall& c, const TensorLayout& l) {
    const Conv2d& g = c.problem.g;
    const Layouts& lie = c.problem.layouts;
    char* at = static_cast<char*>(c.workspace);
    const long long filters = gemm_weights(g);
    FilterMap<T, kChannelsLast> map{};
    map.g = g;
    if (c.warpgroups && sizeof(T) == 4) map.dy = positions_inner(c, l.first, map.of_dy, at);
    else map.dy = taken(c, l.first, c.first, g.K, (long long)g.P * g.Q, lie.first, map.of_dy, at);
    map.x = taken(c, l.second, c.second, g.C, (long long)g.H * g.W, lie.second, map.of_x, at);
    map.dw = reinterpret_cast<float*>(at);
    map.db = c.bias_gradient ? map.dw + c.plan.slices * filters : nullptr;
    map.dy_depth = l.first.depth, map.x_depth = l.second.depth;
    map.dy_wide = l.first.wide, map.x_wide = l.second.wide;
    map.Cg = g.Cg(), map.Kg = g.Kg(), map.line = map.Cg * g.R * g.S, map.filters = filters;
    map.slice = c.plan.slice, map.by_slices = Divisor(c.plan.slices);
    const auto by = [](int n) { return Divisor(std::max(n, 1)); };  // of no outputs or channels, too
    map.by_plane = by(g.P * g.Q), map.by_row = by(g.Q), map.by_depth = by(map.x_depth), map.by_S = by(g.S);
    if (c.warpgroups && c.plan.slices == 1 && (lie.output || g.R * g.S == 1)) map.whole = static_cast<T*>(c.output);
    multiply(c, map);
    if (!map.whole)
      add_filter_slices(c.plan.slices, g.K, g.Cg(), g.R * g.S, lie.output, map.dw, static_cast<T*>(c.output), c.stream);
    if (map.db) add_slices(c.plan.slices, g.K, map.db, static_cast<T*>(c.bias_gradient), c.stream);
  }

  static void run(const TensorCoreCall& c) {
    const TensorLayout l = tensor_layout(c.problem, c.warpgroups);
    const auto with_layout = [&](auto channels_last) {
      constexpr bool kChannelsLast = decltype(channels_last)::value;
      if (c.problem.pass == Pass::wgrad) wgrad<kChannelsLast>(c, l);
      else image<kChannelsLast>(c, l, c.problem.pass == Pass::dgrad);
    };
    if constexpr (sizeof(T) == 4)
      if (!l.first.channels_last) return with_layout(std::false_type{});
    with_layout(std::true_type{});
  }
};

}  // namespace convlab
