#include <atomic>
#include <cstring>
#include <limits>

#include "cpu/conv2d/amx/amx_plan.h"
#include "cpu/conv2d/filters.h"
#include "cpu/conv2d/pieces.h"
#include "cpu/conv2d/register_tiled/register_tiled_plan.h"

namespace convlab::amx {
namespace {

constexpr int64_t kFaster = 16;  // than what pieces.h counts with
constexpr int64_t kPixelWork = 96;  // multiply-adds in the time that copying and rounding a panel's pixel takes

template <class Bits, Bits infinity> bool all_finite(const void* elements, int64_t count) {
  const Bits* const bits = static_cast<const Bits*>(elements);
  std::atomic<bool> all = true;
  parallel_over(count, 1, [&](int64_t begin, int64_t end) {
    Bits largest = 0;  // of the magnitudes' bits: a maximum that any vectors have
    for (int64_t i = begin; i < end; i++) {
      const Bits magnitude = bits[i] & std::numeric_limits<Bits>::max();
      largest = magnitude > largest ? magnitude : largest;
    }
    if (largest >= infinity) all = false;
  });
  return all;
}

void wgrad(const CpuPlan& plan, const Problem& p, const Operands& o) {
  const WgradTables& tables = *static_cast<const WgradTables*>(plan.tables.get());
  const AmxWgrad& a = tables.a;
  const CpuScratch memory(CpuScratch::shared, plan.workspace);
  Carver carver{memory.get()};
  const Shared shared(carver, tables.weight_bytes, 0);
  float* const sums = reinterpret_cast<float*>(shared.weights);
  if (!a.product.strips()) std::memset(sums, 0, size_t(tables.weight_bytes));
  over_pieces(plan, a.product.multiply_adds() / kFaster,
              [&, f = kernels::amx_wgrad.of(p.dtype)](int64_t begin, int64_t end, char* scratch) {
                f(a, o.first, o.second, sums, begin, end, scratch);
              });
  add_up(a.filters, p.dtype, shared.weights, a.slices, int64_t(a.product.groups) * a.vectors(), a.sums() / a.vectors(),
         o.output);
}

void run(const CpuPlan& plan, const Problem& p, const Operands& o) {
  if (p.pass == Pass::wgrad) {
    wgrad(plan, p, o);
    // Zeros of dy meet what lies beside their rows of x: an infinity there would be NaN. Then another does it all again.
    const int64_t weights = int64_t(p.g.K) * p.g.Cg() * p.g.R * p.g.S;
    const bool all = p.dtype == DType::float32 ? all_finite<int32_t, 0x7f800000>(o.output, weights)
                                               : all_finite<int16_t, 0x7f80>(o.output, weights);
    if (all) return;
    return register_tiled::rung.run(register_tiled::rung.plan(p), p, o);
  }
  const Tables& tables = *static_cast<const Tables*>(plan.tables.get());
  AmxProduct t = tables.t;
  t.ending = o.ending;
  const CpuScratch memory(CpuScratch::shared, plan.workspace);
  Carver carver{memory.get()};
  const Shared shared(carver, tables.weight_bytes, tables.bias_bytes);
  const int64_t groups = t.product.groups, vectors = groups * t.panels() * 2,
                elements = int64_t(t.filters.R) * t.filters.S * t.filters.depth * kColumns;
  kernels::pack_bias.of(p.dtype)(o.bias, groups, t.filters.width, int64_t(t.panels()) * kPanel, shared.bias);
  parallel_over(vectors, elements, [&, f = kernels::amx_pack.of(p.dtype)](int64_t begin, int64_t end) {
    const CpuScratch own(CpuScratch::own, packing_scratch(t.filters));
    f(t, o.second, shared.weights, begin, end, own.get());
  });
  const Product& product = t.product;
  const int64_t pixels = int64_t(product.images) * product.rows.target * product.columns.target;
  over_pieces(
      plan, product.multiply_adds() / kFaster + pixels * groups * t.panels() * kPixelWork,
      [&, f = (t.planes ? kernels::amx_planes : kernels::amx).of(p.dtype)](int64_t begin, int64_t end, char* scratch) {
        f(t, o.first, shared.weights, shared.bias, o.output, begin, end, scratch);
      });
}

const Runs registered(rung, run);

}  // namespace
}  // namespace convlab::amx
