#include "algorithms.h"

#include "cpu/choice.h"
#include "kernels/plans.h"

namespace convlab {

std::string refusal(const AlgorithmRow& row, Backend backend, Pass pass, DType dtype, const Conv2d& g) {
  if (!(row.passes[int(backend)] & bit(pass))) return std::string("has no ") + kPassNames[int(pass)] + " for " + kBackendNames[int(backend)] + " tensors";
  return backend == Backend::cuda ? cuda_refusal(row.id, pass, dtype, g) : cpu_refusal(row.id, g);
}

Algorithm resolve(int64_t requested, Backend backend, Pass pass, DType dtype, const Conv2d& g, bool channels_last) {
  if (requested == int64_t(Algorithm::automatic)) return backend == Backend::cuda ? cuda_choice(pass, dtype, g) : cpu_choice(pass, g, channels_last);
  const AlgorithmRow* row = find_algorithm(requested);
  if (!row) throw std::invalid_argument("conv2d: algo number " + std::to_string(requested) + " is not in the table of algorithms");
  const std::string why = refusal(*row, backend, pass, dtype, g);
  if (!why.empty()) throw std::invalid_argument(std::string("conv2d: algo '") + row->name + "' " + why);
  return row->id;
}

}  // namespace convlab
