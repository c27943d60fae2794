// The ladder as data: which algorithms there are, which passes each has on which backend, and which one "auto" takes.
// The host side of the backends and Python (convlab.algorithms()) both read this table. Torch-free.
#pragma once
#include <cstdint>
#include <stdexcept>
#include <string>

#include "dtype.h"
#include "geometry/conv2d.h"

namespace convlab {

enum class Backend { cpu, cuda };
enum class Pass { forward, dgrad, wgrad };

constexpr const char* kBackendNames[] = {"cpu", "cuda"};
constexpr const char* kPassNames[] = {"forward", "dgrad", "wgrad"};

// The numbers travel through the operators' schemas: never reuse one.
enum class Algorithm : int64_t {
  automatic = 0,
  reference = 1,
  direct = 2,
  tiled = 3,
  im2col_gemm = 4,
  implicit_gemm = 5,
  register_tiled = 6,
  small_filter = 7,
  depthwise = 8
};

constexpr unsigned bit(Pass pass) { return 1u << int(pass); }
constexpr unsigned kNoPass = 0, kAllPasses = bit(Pass::forward) | bit(Pass::dgrad) | bit(Pass::wgrad);

struct AlgorithmRow {
  Algorithm id;
  const char* name;
  const char* technique;
  unsigned passes[2];  // by Backend, a bit a Pass
};

constexpr AlgorithmRow kAlgorithms[] = {
    {Algorithm::reference, "reference", "sequential loops, as a course writes them down", {kAllPasses, kNoPass}},
    {Algorithm::direct, "direct", "each output element by the definition, in parallel", {kAllPasses, kAllPasses}},
    {Algorithm::tiled, "tiled", "input tiles in shared memory, filters in constant memory", {kNoPass, bit(Pass::forward) | bit(Pass::dgrad)}},
    {Algorithm::im2col_gemm, "im2col_gemm", "unrolls the input into a matrix, then multiplies in shared-memory tiles", {kNoPass, kAllPasses}},
    {Algorithm::implicit_gemm, "implicit_gemm", "a matrix product in shared-memory tiles, unrolled while they are loaded", {kNoPass, kAllPasses}},
    {Algorithm::register_tiled, "register_tiled", "the same product, with a tile of outputs in registers", {kAllPasses, kAllPasses}},
    {Algorithm::small_filter, "small_filter", "kernels compiled for the filters of LeNet and of CIFAR's first layer", {kNoPass, kAllPasses}},
    {Algorithm::depthwise, "depthwise", "each channel by itself, a run of places in registers", {kAllPasses, kNoPass}},
};

inline const AlgorithmRow* find_algorithm(int64_t id) {
  for (const AlgorithmRow& row : kAlgorithms)
    if (int64_t(row.id) == id) return &row;
  return nullptr;
}

// Why `row` cannot do this pass of the problem on this backend; empty when it can.
std::string refusal(const AlgorithmRow& row, Backend backend, Pass pass, DType, const Conv2d&);

// The algorithm that `requested` stands for in an operator's arguments: itself, or what is best where it is `automatic`. The
// layout is that of the activations, where the backend's kernels take both.
// Throws std::invalid_argument for what is not in the table or cannot do this.
Algorithm resolve(int64_t requested, Backend backend, Pass pass, DType dtype, const Conv2d& g, bool channels_last);

}  // namespace convlab
