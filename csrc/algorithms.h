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

// An algorithm's number in the table (algorithms.cpp). Here are those that the CPU's code asks for by name.
enum class Algorithm : int64_t { automatic = 0, reference = 1, direct = 2, register_tiled = 6, depthwise = 8 };

constexpr unsigned bit(Pass pass) { return 1u << int(pass); }
constexpr unsigned kNoPass = 0, kAllPasses = bit(Pass::forward) | bit(Pass::dgrad) | bit(Pass::wgrad);

struct Rung;  // kernels/rung.h

struct AlgorithmRow {
  Algorithm id;
  const char* name;
  const char* technique;
  unsigned passes[2];  // by Backend, a bit a Pass
  const Rung* rung;    // its decisions on CUDA; null where it has no pass
};

// All of them, the simplest first.
struct AlgorithmTable {
  const AlgorithmRow *first, *last;
  const AlgorithmRow* begin() const { return first; }
  const AlgorithmRow* end() const { return last; }
};
AlgorithmTable algorithms();

const AlgorithmRow* find_algorithm(int64_t id);  // null if it is not in the table

// Why `row` cannot do this pass of the problem on this backend; empty when it can.
std::string refusal(const AlgorithmRow& row, Backend backend, Pass pass, DType, const Conv2d&);

// The algorithm that `requested` stands for in an operator's arguments: itself, or what is best where it is
// `automatic`. The layout is that of the activations, where the backend's kernels take both.
// Throws std::invalid_argument for what is not in the table or cannot do this.
Algorithm resolve(int64_t requested, Backend backend, Pass pass, DType dtype, const Conv2d& g, bool channels_last);

}  // namespace convlab
