// The planted kernels as a torch operator, to see their reports arrive as Python exceptions:
//
//   torch.ops.convlab_planted.run(Tensor in, int index, int order) -> Tensor        the index-th case; float32, 256 elements
#include "host/arguments.h"
#include "simulator/session.h"
#include "planted.h"

std::vector<planted::Case>& planted::cases() {
  static std::vector<Case> all;
  return all;
}

static torch::stable::Tensor run(torch::stable::Tensor x, int64_t index, int64_t order) {
  convlab::sim::current_session() = std::make_shared<convlab::sim::Session>();
  convlab::sim::current_session()->order = convlab::sim::Order(order);
  torch::stable::Tensor y = torch::stable::empty_like(x);
  planted::cases().at(size_t(index)).run(static_cast<const float*>(static_cast<const void*>(convlab::in("in", x))),
                                         static_cast<float*>(static_cast<void*>(convlab::out("out", y))));
  return y;
}

STABLE_TORCH_LIBRARY(convlab_planted, m) { m.def("run(Tensor x, int index, int order) -> Tensor"); }
STABLE_TORCH_LIBRARY_IMPL(convlab_planted, CPU, m) { m.impl("run", TORCH_BOX(&run)); }
