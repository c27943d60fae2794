#include "algorithms.h"

#include <iterator>

#include "cpu/choice.h"
#include "kernels/conv2d_depthwise_plan.h"
#include "kernels/conv2d_direct_plan.h"
#include "kernels/conv2d_im2col_gemm_plan.h"
#include "kernels/conv2d_implicit_gemm_plan.h"
#include "kernels/conv2d_register_tiled_plan.h"
#include "kernels/conv2d_small_filter_plan.h"
#include "kernels/conv2d_tiled_plan.h"

namespace convlab {
namespace {

constexpr unsigned kForwardAndDgrad = bit(Pass::forward) | bit(Pass::dgrad);

// The numbers travel through the operators' schemas: never reuse one. "auto" looks at the CUDA rungs from the last row
// to the first.
constexpr AlgorithmRow kAlgorithms[] = {
    {Algorithm(1), "reference", "sequential loops, as a course writes them down", {kAllPasses, kNoPass}, nullptr},
    {Algorithm(2), "direct", "each output element by the definition, in parallel", {kAllPasses, kAllPasses}, &kDirect},
    {Algorithm(3),
     "tiled",
     "input tiles in shared memory, filters in constant memory",
     {kNoPass, kForwardAndDgrad},
     &kTiled},
    {Algorithm(4),
     "im2col_gemm",
     "unrolls the input into a matrix, then multiplies in shared-memory tiles",
     {kNoPass, kAllPasses},
     &kIm2colGemm},
    {Algorithm(5),
     "implicit_gemm",
     "a matrix product in shared-memory tiles, unrolled while they are loaded",
     {kNoPass, kAllPasses},
     &kImplicitGemm},
    {Algorithm(6),
     "register_tiled",
     "the same product, with a tile of outputs in registers",
     {kAllPasses, kAllPasses},
     &kRegisterTiled},
    {Algorithm(7),
     "small_filter",
     "kernels compiled for the filters of LeNet and of CIFAR's first layer",
     {kNoPass, kAllPasses},
     &kSmallFilter},
    {Algorithm(8),
     "depthwise",
     "each channel by itself, a run of places in registers",
     {kAllPasses, kAllPasses},
     &kDepthwise},
};

constexpr bool numbers_are_unique() {
  for (const AlgorithmRow& a : kAlgorithms)
    for (const AlgorithmRow& b : kAlgorithms)
      if (&a != &b && a.id == b.id) return false;
  return true;
}
static_assert(numbers_are_unique(), "two algorithms have one number");

Algorithm cuda_choice(Pass pass, DType dtype, const Conv2d& g) {
  for (const AlgorithmRow* row = std::end(kAlgorithms); row-- != kAlgorithms;)
    if (row->rung && row->rung->best && refusal(*row, Backend::cuda, pass, dtype, g).empty() &&
        row->rung->best(pass, g))
      return row->id;
  return Algorithm::direct;  // whose plan says why not even it can do this
}

}  // namespace

AlgorithmTable algorithms() { return {std::begin(kAlgorithms), std::end(kAlgorithms)}; }

const AlgorithmRow* find_algorithm(int64_t id) {
  for (const AlgorithmRow& row : kAlgorithms)
    if (int64_t(row.id) == id) return &row;
  return nullptr;
}

std::string refusal(const AlgorithmRow& row, Backend backend, Pass pass, DType dtype, const Conv2d& g) {
  if (!(row.passes[int(backend)] & bit(pass)))
    return std::string("has no ") + kPassNames[int(pass)] + " for " + kBackendNames[int(backend)] + " tensors";
  return backend == Backend::cuda ? row.rung->refusal(pass, dtype, g) : cpu_refusal(row.id, g);
}

Algorithm resolve(int64_t requested, Backend backend, Pass pass, DType dtype, const Conv2d& g, bool channels_last) {
  if (requested == int64_t(Algorithm::automatic))
    return backend == Backend::cuda ? cuda_choice(pass, dtype, g) : cpu_choice(pass, g, channels_last);
  const AlgorithmRow* row = find_algorithm(requested);
  if (!row)
    throw std::invalid_argument("conv2d: algo number " + std::to_string(requested) +
                                " is not in the table of algorithms");
  const std::string why = refusal(*row, backend, pass, dtype, g);
  if (!why.empty()) throw std::invalid_argument(std::string("conv2d: algo '") + row->name + "' " + why);
  return row->id;
}

}  // namespace convlab
