// conv2d_tensor_core.cu's kernels for float32: compiled by themselves, side by side with those for 16 bits.
#include "kernels/conv2d_tensor_core.h"

namespace convlab {

void multiply_float32_on_tensor_cores(const TensorCoreCall& c) {
  if (c.plan.precision == Precision::tf32) TensorCorePasses<Tf32Products>::run(c);
  else TensorCorePasses<Tf32x3Products>::run(c);
}

}  // namespace convlab
