#include "cpu/conv2d/direct/direct_plan.h"
#include "cpu/conv2d/filters.h"
#include "cpu/conv2d/pieces.h"

namespace convlab::direct {
namespace {

void run(const CpuPlan& plan, const Problem& p, const Operands& o) {
  const Tables& t = *static_cast<const Tables*>(plan.tables.get());
  const CpuScratch memory(CpuScratch::shared, plan.workspace);
  Carver carver{memory.get()};
  const Shared shared(carver, t.weight_bytes, t.bias_bytes);
  if (p.pass == Pass::wgrad) {
    over_pieces(plan, t.rp.product.multiply_adds(),
                [&, f = kernels::direct_wgrad.of(p.dtype)](int64_t begin, int64_t end, char* scratch) {
                  f(t.rp, o.first, o.second, shared.weights, begin, end, scratch);
                });
    return kernels::add_slices.of(p.dtype)(t.filters, shared.weights, plan.slices, o.output);
  }
  kernels::direct_pack.of(p.dtype)(t.filters, o.second, o.bias, shared.weights, shared.bias);
  over_pieces(plan, t.rp.product.multiply_adds(),
              [&, f = kernels::direct.of(p.dtype)](int64_t begin, int64_t end, char* scratch) {
                f(t.rp, o.first, shared.weights, shared.bias, o.output, begin, end, scratch);
              });
}

const Runs registered(rung, run);

}  // namespace
}  // namespace convlab::direct
