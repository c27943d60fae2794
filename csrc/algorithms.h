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
enum class Algorithm : int64_t { automatic = 0, reference = 1, direct = 2 };

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
};

inline const AlgorithmRow* find_algorithm(int64_t id) {
  for (const AlgorithmRow& row : kAlgorithms)
    if (int64_t(row.id) == id) return &row;
  return nullptr;
}

// Why `row` cannot do this pass of the problem on this backend; empty when it can.
inline std::string refusal(const AlgorithmRow& row, Backend backend, Pass pass, DType, const Conv2d&) {
  if (row.passes[int(backend)] & bit(pass)) return "";
  return std::string("has no ") + kPassNames[int(pass)] + " for " + kBackendNames[int(backend)] + " tensors";
}

// What "auto" runs.
inline Algorithm choose(Backend, Pass, DType, const Conv2d&) { return Algorithm::direct; }

// The algorithm that `requested` stands for in an operator's arguments.
inline Algorithm resolve(int64_t requested, Backend backend, Pass pass, DType dtype, const Conv2d& g) {
  if (requested == int64_t(Algorithm::automatic)) return choose(backend, pass, dtype, g);
  const AlgorithmRow* row = find_algorithm(requested);
  if (!row) throw std::invalid_argument("conv2d: algo number " + std::to_string(requested) + " is not in the table of algorithms");
  const std::string why = refusal(*row, backend, pass, dtype, g);
  if (!why.empty()) throw std::invalid_argument(std::string("conv2d: algo '") + row->name + "' " + why);
  return row->id;
}

}  // namespace convlab
