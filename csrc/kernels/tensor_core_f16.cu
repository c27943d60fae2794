// conv2d_tensor_core.cu's kernels for one precision: compiled by themselves, side by side with the others.
#define CONVLAB_TENSOR_CORE_LAUNCHES
#include "kernels/conv2d_tensor_core.h"

namespace convlab {

void tensor_core_f16(const TensorCoreCall& call) { TensorCorePasses<Float16Products>::run(call); }

}  // namespace convlab
