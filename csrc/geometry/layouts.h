// How the three tensors of an operator lie. Torch-free.
#pragma once

namespace convlab {

// Which of an operator's tensors lie channels_last, as kernels see them; a backend that takes NCHW alone need not look.
struct Layouts {
  bool first = false, second = false, output = false;
};

}  // namespace convlab
