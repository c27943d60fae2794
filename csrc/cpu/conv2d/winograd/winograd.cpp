#include "cpu/conv2d/pieces.h"
#include "cpu/conv2d/winograd/winograd_plan.h"

namespace convlab::winograd {
namespace {

// Multiply-adds of the products
int64_t work_of(const Tiling& t) {
  return int64_t(t.images) * t.tile_rows() * t.tile_columns() * t.points() * t.groups * t.depth * t.width;
}

void wgrad(const CpuPlan& plan, const Tiling& t, const Operands& o, float* sums) {
  over_pieces(plan, work_of(t),
              [&, f = kernels::winograd_wgrad.of(DType::float32)](int64_t begin, int64_t end, char* scratch) {
                f(t, o.first, o.second, o.output, sums, begin, end, scratch);
              });
  if (t.slices == 1) return;
  parallel_over(int64_t(t.groups) * t.width, int64_t(t.depth) * kTaps * kTaps * t.slices,
                [&, f = kernels::winograd_add_slices.of(DType::float32)](int64_t begin, int64_t end) {
                  f(t, o.first, o.second, sums, o.output, begin, end);
                });
}

void run(const CpuPlan& plan, const Problem& p, const Operands& o) {
  const Tiling& t = *static_cast<const Tiling*>(plan.tables.get());
  const CpuScratch memory(CpuScratch::shared, plan.workspace);
  Carver carver{memory.get()};
  float* const shared = lay_out_shared(carver, t, p.pass == Pass::wgrad);
  if (p.pass == Pass::wgrad) return wgrad(plan, t, o, shared);
  if (t.kept)
    parallel_over(int64_t(t.groups) * t.panels(), int64_t(t.points()) * t.depth * t.panel,
                  [&, f = kernels::winograd_filters.of(DType::float32)](int64_t begin, int64_t end) {
                    const CpuScratch own(CpuScratch::own, plan.scratch);
                    f(t, o.second, shared, begin, end, own.get());
                  });
  CpuPlan finishing = plan;
  if (o.finish)
    finishing.scratch = measured([&](Measure& memory) {
      lay_out(memory, t, false);
      Finished<float>(memory, finished_elements(t, o.finish->ending.R, o.finish->Q));
    });
  over_pieces(finishing, work_of(t),
              [&, f = kernels::winograd_run.of(DType::float32)](int64_t begin, int64_t end, char* scratch) {
                f(t, o.first, o.second, t.kept ? shared : nullptr, o.bias, o.output, o.finish, begin, end, scratch);
              });
}

const Runs of_2x2(rung_2x2, run), of_4x4(rung_4x4, run);

}  // namespace
}  // namespace convlab::winograd
