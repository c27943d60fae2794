// What every operator's Impl on CUDA has to change the layout of a tensor (tensors.h).
#pragma once
#include "cuda/stream.h"
#include "host/arguments.h"
#include "kernels/layout.h"

namespace convlab {

struct ChangesLayout {
  static void change_layout(const Tensor& from, Tensor& to, bool to_channels_last) {
    const CurrentStream stream(from);
    convlab::change_layout(element_bytes(from), from.size(0), int(from.size(1)), from.size(2) * from.size(3),
                           to_channels_last, in("input", from), out("output", to), stream);
  }
};

}  // namespace convlab
