// Which instruction set's kernels this process uses.
#include "cpu/instruction_sets.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace convlab {
namespace {

#define CONVLAB_SET(set, ...) &set::kSet,
constexpr const InstructionSet* kAll[] = {CONVLAB_EACH_SET(CONVLAB_SET)};

bool runs_here(const std::string& name) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool has_avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  if (name == "avx2") return has_avx2;
  if (name == "avx512")
    return has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
#endif
  return name == "baseline";
}

int choose() {
  const char* variable = std::getenv("CONVLAB_CPU");
  const std::string asked = variable ? variable : "";
  std::string names;
  for (int i = 0; i < kSets; i++) {
    if (!runs_here(kAll[i]->name)) continue;
    if (asked.empty() || asked == kAll[i]->name) return i;
    names += (names.empty() ? "" : ", ") + std::string(kAll[i]->name);
  }
  throw std::runtime_error("CONVLAB_CPU is '" + asked + "'; this machine runs " + names);
}

}  // namespace

int set_in_use() {
  static const int chosen = choose();
  return chosen;
}

const InstructionSet& instruction_set() { return *kAll[set_in_use()]; }

}  // namespace convlab
