// 1 x 1 filters over planes up to their kernel.
#pragma once
#include "cpu/conv2d/register_tiled/planes.h"
#include "cpu/conv2d/tap_tables.h"

namespace convlab::register_tiled {

constexpr int64_t kPiecesWanted = 16;  // enough to share among a few threads; more where strips are small anyway
constexpr int kRowsOfPart = 128;  // at least: each part copies the block
constexpr int kLeastFilled = 5;  // at most a fifth of the lanes of a plane's vectors is empty

// Planes whose pixels fill vectors. They need not be turned.
inline bool takes_planes(const Problem& p) {
  const Conv2d& g = p.g;
  const int64_t plane = int64_t(g.P) * g.Q, whole = round_up(plane, instruction_set().lanes(p.dtype));
  return p.pass != Pass::wgrad && is_pointwise(g) && g.P == g.H && g.Q == g.W && !p.layouts.first &&
         !p.layouts.output && is_sum_type(p.dtype) && (whole - plane) * kLeastFilled <= whole;
}

struct PlanesTables {
  Filters filters;
  PlanesProduct product;
  Blocks blocks;
  int64_t weight_bytes, bias_bytes;

  explicit PlanesTables(const Problem& p)
      : filters(filters_of(p)),
        product(product_of(p, filters)),
        blocks(product, instruction_set(), instruction_set().lanes(p.dtype)) {
    product.parts = int(std::clamp<int64_t>(kPiecesWanted / std::max<int64_t>(1, pieces()), 1,
                                            std::max(1, product.rows / kRowsOfPart)));
    const int64_t element = sum_bytes(p.dtype);
    weight_bytes = product.packed ? vectors_of_rows() * filters.depth * instruction_set().vector_bytes : 0;
    bias_bytes = int64_t(product.groups) * product.rows * element;
  }
  int64_t vectors_of_rows() const {
    return int64_t(filters.groups) * ((filters.width + blocks.lanes - 1) / blocks.lanes);
  }
  int64_t pieces() const { return product.images * product.groups * blocks.pieces * product.parts; }

 private:
  static PlanesProduct product_of(const Problem& p, const Filters& f) {
    const int lanes = instruction_set().lanes(p.dtype);
    const bool packed = f.depth_stride != 1;
    return {.images = p.g.N,
            .pixels = int64_t(p.g.P) * p.g.Q,
            .groups = f.groups,
            .rows = f.width,
            .depth = f.depth,
            .group = packed ? round_up(f.width, lanes) * f.depth : f.group,
            .row = f.lane,
            .packed = packed};
  }
};

inline CpuPlan planes_plan(const Problem& p) {
  const auto tables = std::make_shared<const PlanesTables>(p);
  return {.images_per_strip = 1,
          .pieces = tables->pieces(),
          .workspace = measured([&](Measure& memory) { Shared(memory, tables->weight_bytes, tables->bias_bytes); }),
          .scratch = measured<PlanesBench>(p.dtype, tables->product, tables->blocks, false),
          .tables = tables,
          .epilogue = Epilogue::activation};
}

}  // namespace convlab::register_tiled
