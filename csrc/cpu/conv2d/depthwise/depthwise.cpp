#include "cpu/conv2d/depthwise/depthwise_plan.h"
#include "cpu/conv2d/filters.h"
#include "cpu/conv2d/pieces.h"

namespace convlab::depthwise {
namespace {

// Of neighbouring channels as one group, w [channels, group, R, S]
Filters filters_of(const Problem& p, int channels) {
  Filters f = convlab::filters_of(p);
  f.lane = f.group / f.width, f.groups = 1, f.width = channels;
  if (f.depth == 1) f.depth_stride = f.lane, f.tap = 1;
  return f;
}

void wgrad(const CpuPlan& plan, const Tables& t, const Problem& p, const Operands& o, const Shared& shared) {
  const Depthwise& d = t.d;
  const auto f = (d.planes ? kernels::depthwise_planes_wgrad : kernels::depthwise_pixels_wgrad).of(p.dtype);
  over_pieces(plan, d.product.multiply_adds(), [&](int64_t begin, int64_t end, char* scratch) {
    f(d, o.first, o.second, shared.weights, begin, end, scratch);
  });
  const Filters filters = filters_of(p, p.g.C);
  if (d.planes) return kernels::add_slices.of(p.dtype)(filters, shared.weights, d.slices, nullptr, o.output);
  kernels::unpack_weights.of(p.dtype)(filters, shared.weights, d.slices, t.vectors * d.kernel_taps * t.lanes, o.output,
                                      0, t.vectors);
}

void pack(const Tables& t, const Problem& p, const Operands& o, const Shared& shared) {
  const int64_t channels = t.vectors * t.lanes, taps = t.d.kernel_taps;
  const auto pack_bias = kernels::pack_bias.of(p.dtype);
  pack_bias(o.bias, 1, p.g.C, channels, shared.bias);
  if (t.d.planes) return pack_bias(o.second, 1, p.g.C * taps, p.g.C * taps, shared.weights);
  if (t.d.group > 1)
    return kernels::pack_groups.of(p.dtype)(convlab::filters_of(p), o.second, t.vectors, shared.weights);
  const auto pack_weights = kernels::pack_weights.of(p.dtype);
  pack_weights(filters_of(p, p.g.C), o.second, shared.weights, 0, t.vectors);
  if (p.g.C > t.lanes)  // the last vector covers part of the one before
    pack_weights(filters_of(p, t.lanes),
                 static_cast<const char*>(o.second) + (p.g.C - t.lanes) * taps * bytes_of(p.dtype),
                 shared.weights + (t.vectors - 1) * taps * t.lanes * t.element, 0, 1);
}

void run(const CpuPlan& plan, const Problem& p, const Operands& o) {
  const Tables& t = *static_cast<const Tables*>(plan.tables.get());
  Depthwise d = t.d;
  d.ending = o.ending;
  const CpuScratch memory(CpuScratch::shared, plan.workspace);
  Carver carver{memory.get()};
  const Shared shared(carver, t.weight_bytes, t.bias_bytes);
  if (p.pass == Pass::wgrad) return wgrad(plan, t, p, o, shared);
  pack(t, p, o, shared);
  const auto f = (d.planes ? kernels::depthwise_planes : kernels::depthwise_pixels).of(p.dtype);
  over_pieces(plan, d.product.multiply_adds(), [&](int64_t begin, int64_t end, char* scratch) {
    f(d, o.first, shared.weights, shared.bias, o.output, begin, end, scratch);
  });
}

const Runs registered(rung, run);

}  // namespace
}  // namespace convlab::depthwise
