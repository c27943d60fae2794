// Products of planes up to their kernel.
#pragma once
#include "cpu/conv2d/register_tiled/planes.h"
#include "cpu/conv2d/tap_tables.h"

namespace convlab::register_tiled {

constexpr int kMostRows = 2048;  // of a part that has a panel of them
constexpr int kLeastFilled = 5;  // at most a fifth of the lanes of a plane's vectors is empty

constexpr int kRowsOfTornVectors = 128;  // 0.8 times as fast with 16

// Filters that meet every element of x at most once, in rows that are taken apart by two at most, and in dgrad exactly
// once, two in a row: nothing is added up, and nothing left out
inline bool meets_in_planes(const Problem& p) {
  const Conv2d& g = p.g;
  if (!meets_once(g)) return false;
  if (p.pass != Pass::dgrad) return g.stride_w <= 2;
  return g.R == g.stride_h && g.S == g.stride_w && (g.S == 2 || g.R * g.S == 1) && g.H == g.P * g.R && g.W == g.Q * g.S;
}

// Planes whose pixels fill vectors, and where they lie apart, pixels of a row: a vector of two rows' is taken in two parts,
// which pays where many channels meet it. They need not be turned.
inline bool takes_planes(const Problem& p) {
  const Conv2d& g = p.g;
  const int lanes = instruction_set().lanes(p.dtype);
  const bool dgrad = p.pass == Pass::dgrad;
  const int64_t row = int64_t(g.Q) * (dgrad ? g.S : 1), plane = g.P * row, whole = round_up(plane, lanes);
  return p.pass != Pass::wgrad && meets_in_planes(p) && !p.layouts.first && !p.layouts.output &&
         (g.R * g.S == 1 || !p.layouts.second) && is_sum_type(p.dtype) && (whole - plane) * kLeastFilled <= whole &&
         (g.stride_h * g.stride_w == 1 || row % lanes == 0 || (g.Q > lanes && (dgrad || g.Kg() >= kRowsOfTornVectors)));
}

// The weights of the rows, each tap as a channel of its own
inline Filters filters_of_rows(const Problem& p) {
  Filters f = filters_of(p);
  const int taps = f.R * f.S;
  if (taps == 1) return f;
  (p.pass == Pass::dgrad ? f.lane : f.depth_stride) = 1;
  (p.pass == Pass::dgrad ? f.width : f.depth) *= taps;
  f.R = f.S = 1;
  return f;
}

struct PlanesTables {
  Filters filters;
  PlanesProduct product;
  Blocks blocks;
  int64_t weight_bytes, bias_bytes;

  explicit PlanesTables(const Problem& p)
      : filters(filters_of_rows(p)),
        product(product_of(p, filters)),
        blocks(product, instruction_set(), instruction_set().lanes(p.dtype)) {
    const int fewest = product.tears() ? (product.rows + kMostRows - 1) / kMostRows : 1,
              most = product.rows / kRowsOfPart;
    product.parts = int(
        std::clamp<int64_t>(kPiecesWanted / std::max<int64_t>(1, pieces()), std::max(1, fewest), std::max(1, most)));
    const int64_t element = sum_bytes(p.dtype);
    weight_bytes = product.packed ? vectors_of_rows() * filters.depth * instruction_set().vector_bytes : 0;
    bias_bytes = int64_t(product.groups) * channels() * element;
  }
  int64_t vectors_of_rows() const {
    return int64_t(filters.groups) * ((filters.width + blocks.lanes - 1) / blocks.lanes);
  }
  int channels() const { return product.rows / product.target.taps(); }  // of the target, a group's
  int64_t pieces() const { return product.images_apart() * product.groups * blocks.pieces * product.parts; }

 private:
  static PlanesProduct product_of(const Problem& p, const Filters& f) {
    const Conv2d& g = p.g;
    const int lanes = instruction_set().lanes(p.dtype);
    const bool packed = f.depth_stride != 1, forward = p.pass == Pass::forward;
    const Apart plain{.row = g.Q, .plane = int64_t(g.P) * g.Q},
        apart{g.R, g.S, g.stride_h, g.stride_w, g.W, int64_t(g.H) * g.W};
    return {.images = g.N,
            .pixels = plain.plane,
            .groups = f.groups,
            .rows = f.width,
            .depth = f.depth,
            .group = packed ? round_up(f.width, lanes) * f.depth : f.group,
            .row = f.lane,
            .packed = packed,
            .Q = g.Q,
            .source = forward ? apart : plain,
            .target = forward ? plain : apart};
  }
};

inline CpuPlan planes_plan(const Problem& p) {
  const auto tables = std::make_shared<const PlanesTables>(p);
  return {.images_per_strip = 1,
          .pieces = tables->pieces(),
          .workspace = measured([&](Measure& memory) { Shared(memory, tables->weight_bytes, tables->bias_bytes); }),
          .scratch = measured<PlanesBench>(p.dtype, tables->product, tables->blocks),
          .tables = tables,
          .epilogue = tables->product.pairs() ? Epilogue::none : Epilogue::activation,
          .activates = !tables->product.pairs()};
}

}  // namespace convlab::register_tiled
