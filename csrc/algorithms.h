// The ladder as data: which algorithms there are, which passes each has on which backend, and which one "auto" takes.
// The host side of the backends and Python (convlab.algorithms()) both read this table. Torch-free.
#pragma once
#include <cstdint>
#include <string>

#include "dtype.h"
#include "geometry/conv2d.h"
#include "geometry/layouts.h"

namespace convlab {

enum class Backend { cpu, cuda };
enum class Pass { forward, dgrad, wgrad };

constexpr const char* kBackendNames[] = {"cpu", "cuda"};
constexpr const char* kPassNames[] = {"forward", "dgrad", "wgrad"};

constexpr unsigned bit(Pass pass) { return 1u << int(pass); }
constexpr unsigned kNoPass = 0, kAllPasses = bit(Pass::forward) | bit(Pass::dgrad) | bit(Pass::wgrad);

// What "auto" may do to float32: the numbers that stand for it in an operator's arguments
enum class Rounding : int64_t {
  usual = 0,   // errors up to twice those of torch
  exact = -1,  // every product of the definition is made
  tf32 = -2,   // errors up to five times those of torch
  bf16 = -3,   // or what is multiplied is rounded to bfloat16
};
constexpr bool is_coarse(Rounding r) { return r == Rounding::tf32 || r == Rounding::bf16; }

// Of an H100 or H200. Plans are for these where no GPU is named; and wgrad's sums are cut into slices for these on every
// GPU, so that a shape has one order of additions.
constexpr int kMultiprocessors = 132, kCapability = 90;

// A pass of a convolution. channels_last: what torch says of the activations that it reads or writes.
struct Problem {
  Pass pass;
  DType dtype;
  Conv2d g;
  bool channels_last = false;
  Layouts layouts{};
  Rounding rounding = Rounding::usual;  // asked by `best`, and by the plans of rungs that round
  int capability = kCapability;            // ten times its compute capability; and
  int multiprocessors = kMultiprocessors;  // of the GPU, asked by the plans of rungs that choose among tiles
};

// An algorithm on one backend. Where the library has its kernels, these make themselves known as `run`.
template <class PlanOfRung, class Run> struct Rung {
  using Plan = PlanOfRung;

  bool (*can)(const Problem&);            // cheap: every call asks
  std::string (*why_not)(const Problem&);  // the sentence, where it cannot
  Plan (*plan)(const Problem&);           // how it does what it can
  bool (*best)(const Problem&);           // whether it is worth its while, where it can; null: never
  bool as_they_lie = false;               // on CUDA: whether its kernels take tensors that lie channels_last
  const Run* run = nullptr;
};

struct Plan;         // kernels/plan.h
struct ConvKernels;  // kernels/launchers.h
struct CpuPlan;      // cpu/conv2d/cpu_rung.h
struct Operands;
using CudaRung = Rung<Plan, ConvKernels>;
using CpuRung = Rung<CpuPlan, void(const CpuPlan&, const Problem&, const Operands&)>;

inline bool can_all(const Problem&) { return true; }
inline std::string no_reason(const Problem&) { return ""; }
inline bool always_best(const Problem&) { return true; }

template <class Rung> struct OnBackend {
  const char* technique = "";
  unsigned passes = kNoPass;  // a bit a Pass
  const Rung* rung = nullptr;
};

struct AlgorithmRow {
  int64_t id;
  const char* name;
  OnBackend<CpuRung> cpu{};
  OnBackend<CudaRung> cuda{};

  unsigned passes(Backend backend) const { return backend == Backend::cpu ? cpu.passes : cuda.passes; }
  const char* technique(Backend backend) const { return backend == Backend::cpu ? cpu.technique : cuda.technique; }
};

// All of them, the simplest first.
struct AlgorithmTable {
  const AlgorithmRow *first, *last;
  const AlgorithmRow* begin() const { return first; }
  const AlgorithmRow* end() const { return last; }
};
AlgorithmTable algorithms();

const AlgorithmRow* find_algorithm(int64_t id);  // null if it is not in the table

// Why `row` cannot do a problem on this backend; empty when it can.
std::string refusal(const AlgorithmRow& row, Backend backend, const Problem&);

// What runs a problem, and how
template <class Rung> struct Chosen {
  const AlgorithmRow* row;
  const Rung* rung;
  typename Rung::Plan plan;
};

// An operator's argument for an algorithm by its number, where float32 may be rounded as Rounding::tf32 or bf16 has it
constexpr int64_t kWithTf32 = 1 << 16, kWithBf16 = 2 * kWithTf32;
// ... and what it says; usual where it says nothing
constexpr Rounding rounding_of(int64_t algo) {
  return algo >= kWithBf16 ? Rounding::bf16 : algo >= kWithTf32 ? Rounding::tf32 : Rounding::usual;
}

// The algorithm with the number `requested`, perhaps + kWithTf32 or kWithBf16; a Rounding is "auto": the last row that can do the problem
// and thinks it best.
// Throws std::invalid_argument for what is not in the table or cannot do this.
template <class Rung> Chosen<Rung> resolve(int64_t requested, const Problem&);

}  // namespace convlab
