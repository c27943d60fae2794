#include "cpu/conv2d/filters.h"
#include "cpu/conv2d/pieces.h"
#include "cpu/conv2d/register_tiled/register_tiled_plan.h"

namespace convlab::register_tiled {
namespace {

// The vectors of all groups, of so many elements, packed
void pack(const Filters& f, DType dtype, const void* w, int64_t vectors, int64_t elements, char* packed) {
  parallel_over(vectors, elements, [&, pack = kernels::pack_weights.of(dtype)](int64_t begin, int64_t end) {
    pack(f, w, packed + begin * elements * sum_bytes(dtype), begin, end);
  });
}

void run_planes(const CpuPlan& plan, const Problem& p, const Operands& o) {
  const PlanesTables& t = *static_cast<const PlanesTables*>(plan.tables.get());
  PlanesProduct product = t.product;
  product.ending = o.ending;
  const CpuScratch memory(CpuScratch::shared, plan.workspace);
  Carver carver{memory.get()};
  const Shared shared(carver, t.weight_bytes, t.bias_bytes);
  kernels::pack_bias.of(p.dtype)(o.bias, product.groups, t.channels(), t.channels(), shared.bias);
  if (product.packed)
    pack(t.filters, p.dtype, o.second, t.vectors_of_rows(), int64_t(product.depth) * t.blocks.lanes, shared.weights);
  const void* const weights = product.packed ? shared.weights : o.second;
  over_pieces(plan, product.images * product.groups * product.rows * product.depth * product.pixels,
              [&, f = kernels::register_tiled_planes.of(p.dtype)](int64_t begin, int64_t end, char* scratch) {
                f(product, o.first, weights, shared.bias, o.output, o.finish, begin, end, scratch);
              });
}

void run(const CpuPlan& plan, const Problem& p, const Operands& o) {
  if (takes_planes(p)) return run_planes(plan, p, o);
  const Tables& tables = *static_cast<const Tables*>(plan.tables.get());
  const TiledProduct& t = tables.t;
  const CpuScratch memory(CpuScratch::shared, plan.workspace);
  Carver carver{memory.get()};
  const Shared shared(carver, tables.weight_bytes, tables.bias_bytes);
  const int64_t groups = t.product.groups, vectors = groups * tables.channels.vectors,
                elements = weights_of_vector(t, tables.channels);
  if (p.pass == Pass::wgrad) {
    over_pieces(plan, t.product.multiply_adds(),
                [&, f = kernels::register_tiled_wgrad.of(p.dtype)](int64_t begin, int64_t end, char* scratch) {
                  f(t, o.first, o.second, o.output, shared.weights, begin, end, scratch);
                });
    if (t.slices == 1) return;
    return add_up(t.filters, p.dtype, shared.weights, t.slices, vectors, elements, o.output);
  }
  TiledProduct finished = t;
  finished.ending = o.ending;
  CpuPlan finishing = plan;
  Finish finish{};
  if (o.finish) {
    finish = o.finish->over(t.product), finished.window = finish.elements();
    finishing.scratch = measured(p.dtype, [&](Measure& memory, auto sum) {
      Bench<decltype(sum)>(memory, finished, tables.channels);
      Finished<decltype(sum)>(memory, finished_elements(finished, tables.channels));
    });
  }
  kernels::pack_bias.of(p.dtype)(o.bias, groups, t.filters.width, tables.channels.vectors * tables.channels.lanes,
                                 shared.bias);
  if (!t.packs_weights) pack(t.filters, p.dtype, o.second, vectors, elements, shared.weights);
  over_pieces(finishing, t.product.multiply_adds(),
              [&, f = kernels::register_tiled.of(p.dtype)](int64_t begin, int64_t end, char* scratch) {
                f(finished, o.first, o.second, shared.weights, shared.bias, o.output, o.finish ? &finish : nullptr,
                  begin, end, scratch);
              });
}

const Runs registered(rung, run);

}  // namespace
}  // namespace convlab::register_tiled
