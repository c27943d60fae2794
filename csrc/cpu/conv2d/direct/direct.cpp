#include "cpu/conv2d/direct/direct_plan.h"
#include "cpu/conv2d/filters.h"
#include "cpu/conv2d/pieces.h"

namespace convlab::direct {
namespace {

// dx [N, C, plane] += bias [C], where a position of all channels lies so or `channels_last`
template <class T> void add_bias(const Conv2d& g, bool channels_last, const T* bias, T* dx) {
  const int64_t plane = int64_t(g.H) * g.W, step = channels_last ? g.C : 1;
  for (int n = 0; n < g.N; n++, dx += g.C * plane)
    for (int c = 0; c < g.C; c++) {
      T* const to = dx + (channels_last ? c : c * plane);
      for (int64_t i = 0; i < plane; i++) to[i * step] = T(acc_t<T>(to[i * step]) + acc_t<T>(bias[c]));
    }
}

void run(const CpuPlan& plan, const Problem& problem, const Operands& o) {
  const Problem p = as_matrix_product(problem);
  const bool swapped = p.pass != problem.pass && p.pass != Pass::wgrad;
  const void *first = swapped ? o.second : o.first, *second = swapped ? o.first : o.second;
  const Tables& t = *static_cast<const Tables*>(plan.tables.get());
  const Filters& f = t.rp.filters;
  const CpuScratch memory(CpuScratch::shared, plan.workspace);
  Carver carver{memory.get()};
  const Shared shared(carver, t.weight_bytes, t.bias_bytes);
  const auto pack_bias = kernels::pack_bias.of(p.dtype);
  if (p.pass == Pass::wgrad) {
    pack_bias(o.bias, 1, f.depth, f.depth, shared.bias);
    over_pieces(plan, t.rp.product.multiply_adds(),
                [&, f = kernels::direct_wgrad.of(p.dtype)](int64_t begin, int64_t end, char* scratch) {
                  f(t.rp, first, second, shared.weights, begin, end, scratch);
                });
    return kernels::add_slices.of(p.dtype)(f, shared.weights, plan.slices, o.bias ? shared.bias : nullptr, o.output);
  }
  pack_bias(swapped ? nullptr : o.bias, f.groups, f.width, f.width, shared.bias);
  const void* const weights = packs(p) ? shared.weights : second;
  if (packs(p)) kernels::direct_pack.of(p.dtype)(filters_of(p), second, p.pass == Pass::dgrad, shared.weights);
  RowProduct rp = t.rp;
  rp.ending = o.ending;
  CpuPlan finishing = plan;
  Finish finish{};
  if (o.finish) {
    finish = o.finish->over(rp.product), rp = finished(rp, finish.ending.R, bytes_of(p.dtype));
    finishing.pieces = pieces_of(rp);
    finishing.scratch = measured<Bench>(p.dtype, rp, instruction_set().lanes(p.dtype));
  }
  over_pieces(finishing, rp.product.multiply_adds(),
              [&, f = kernels::direct.of(p.dtype)](int64_t begin, int64_t end, char* scratch) {
                f(rp, first, weights, shared.bias, o.output, o.finish ? &finish : nullptr, begin, end, scratch);
              });
  if (swapped && o.bias)  // of channels, which are no more than parts of that product's rows
    dispatch(p.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      add_bias(problem.g, problem.layouts.output, static_cast<const T*>(o.bias), static_cast<T*>(o.output));
    });
}

const Runs registered(rung, run);

}  // namespace
}  // namespace convlab::direct
