// Which instruction set's kernels this process uses.
#include "cpu/instruction_sets.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>

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

constexpr std::string_view kWithAmx = "avx512";  // the set whose kernels use AMX; a build may lack it

// What AMX's kernels are made of
bool processor_has_amx() {
#if defined(CONVLAB_HAS_AMX)
  constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;  // of leaf 7, edx
  constexpr unsigned kAvx512Bf16 = 1u << 5;  // of leaf 7.1, eax
  unsigned a, b, c, d;
  if (!runs_here(std::string(kWithAmx)) || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & kAmxBf16) ||
      !(d & kAmxTile))
    return false;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & kAvx512Bf16);
#else
  return false;
#endif
}

// The registers are 8 KB more of a thread's state, in signal handlers' frames as well, so Linux, since 5.16, gives them to
// processes that ask: once, for all threads. It refuses where a thread's alternative signal stack has no room for them.
bool system_allows_amx() {
#if defined(CONVLAB_HAS_AMX) && defined(SYS_arch_prctl)
  constexpr long kAskForState = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kAskForState, kTileData) == 0;
#else
  return false;
#endif
}

std::string asked_for() {
  const char* variable = std::getenv("CONVLAB_CPU");
  return variable ? variable : "";
}

int choose() {
  const std::string asked = asked_for();
  std::string names = kAll[0]->name == kWithAmx && processor_has_amx() ? "amx" : "";
  for (int i = 0; i < kSets; i++) {
    if (!runs_here(kAll[i]->name)) continue;
    if (asked.empty() || asked == kAll[i]->name || (asked == "amx" && names == "amx")) return i;
    names += (names.empty() ? "" : ", ") + std::string(kAll[i]->name);
  }
  throw std::runtime_error("CONVLAB_CPU is '" + asked + "'; this machine runs " + names);
}

}  // namespace

int set_in_use() {
  static const int chosen = choose();
  return chosen;
}

bool has_amx() {
  static const bool has = (asked_for().empty() || asked_for() == "amx") && instruction_set().name == kWithAmx &&
                          processor_has_amx() && system_allows_amx();
  return has;
}

const InstructionSet& instruction_set() { return *kAll[set_in_use()]; }

}  // namespace convlab
