// Which instruction set's kernels this process uses.
#include "cpu/kernels.h"

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace convlab {

namespace avx512 {
extern const CpuKernels kernels;
}
namespace avx2 {
extern const CpuKernels kernels;
}
namespace baseline {
extern const CpuKernels kernels;
}

namespace {

struct Candidate {
  const CpuKernels* kernels;
  bool runs_here;
};

const CpuKernels& choose() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool has_avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                          __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
  const Candidate candidates[] = {
      {&avx512::kernels, has_avx512}, {&avx2::kernels, has_avx2}, {&baseline::kernels, true}};
#else
  const Candidate candidates[] = {{&baseline::kernels, true}};
#endif
  const char* asked = std::getenv("CONVLAB_CPU");
  std::string names;
  for (const Candidate& c : candidates) {
    if (asked && *asked ? c.runs_here && std::strcmp(asked, c.kernels->name) == 0 : c.runs_here) return *c.kernels;
    if (c.runs_here) names += std::string(names.empty() ? "" : ", ") + c.kernels->name;
  }
  throw std::runtime_error(std::string("CONVLAB_CPU is '") + asked + "'; this machine runs " + names);
}

}  // namespace

const CpuKernels& cpu_kernels() {
  static const CpuKernels& chosen = choose();
  return chosen;
}

}  // namespace convlab

// ---- for convlab/cpu.py
// -----------------------------------------------------------------------------------------------

// The name of the kernels in use; null where CONVLAB_CPU is wrong, and then `error` says how
extern "C" [[gnu::visibility("default")]] const char* convlab_cpu_kernels(const char** error) {
  static std::string message;
  try {
    return convlab::cpu_kernels().name;
  } catch (const std::exception& e) {
    message = e.what();
    *error = message.c_str();
    return nullptr;
  }
}

// Floating-point operations a second that `threads` threads reach together, in float32 multiply-adds
extern "C" [[gnu::visibility("default")]] double convlab_cpu_peak(double seconds, int threads) {
  using clock = std::chrono::steady_clock;
  std::vector<double> rates(threads);
  std::vector<std::thread> others;
  const auto measure = [&](double& rate) {
    const auto start = clock::now();
    double operations = 0, elapsed = 0;
    for (; elapsed < seconds; elapsed = std::chrono::duration<double>(clock::now() - start).count())
      operations += convlab::cpu_kernels().multiply_add(10000);
    rate = operations / elapsed;
  };
  for (int i = 1; i < threads; i++) others.emplace_back(measure, std::ref(rates[i]));
  measure(rates[0]);
  for (std::thread& thread : others) thread.join();
  return std::accumulate(rates.begin(), rates.end(), 0.0);
}
