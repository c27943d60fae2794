#include "cpu/conv2d/reference/loops.h"
#include "cpu/conv2d/reference/reference_plan.h"

namespace convlab::reference {
namespace {

void run(const CpuPlan&, const Problem& p, const Operands& o) {
  const Strides xs = x_strides(p), ys = y_strides(p);
  const Filters f = filters_of(p);
  dispatch(p.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T *first = static_cast<const T*>(o.first), *second = static_cast<const T*>(o.second);
    T* output = static_cast<T*>(o.output);
    switch (p.pass) {
      case Pass::forward: return forward(p.g, xs, f, ys, first, second, static_cast<const T*>(o.bias), output);
      case Pass::dgrad: return dgrad(p.g, ys, f, xs, first, second, static_cast<const T*>(o.bias), output);
      case Pass::wgrad: return wgrad(p.g, ys, xs, f, first, second, output);
    }
  });
}

const Runs registered(rung, run);

}  // namespace
}  // namespace convlab::reference
