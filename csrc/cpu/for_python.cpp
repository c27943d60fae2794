// What convlab/cpu.py asks.
#include "cpu/peak.h"

#include <chrono>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

// The name of the kernels in use; null where CONVLAB_CPU is wrong, and then `error` says how
extern "C" [[gnu::visibility("default")]] const char* convlab_cpu_kernels(const char** error) {
  static std::string message;
  try {
    return convlab::instruction_set().name;
  } catch (const std::exception& e) {
    message = e.what();
    *error = message.c_str();
    return nullptr;
  }
}

// Of kernels that are there
extern "C" [[gnu::visibility("default")]] bool convlab_cpu_amx() { return convlab::has_amx(); }

// Floating-point operations a second that `threads` threads reach together, in float32 multiply-adds
extern "C" [[gnu::visibility("default")]] double convlab_cpu_peak(double seconds, int threads) {
  using clock = std::chrono::steady_clock;
  std::vector<double> rates(threads);
  std::vector<std::thread> others;
  const auto multiply_add = convlab::kernels::multiply_add.of(convlab::DType::float32);
  const auto measure = [&](double& rate) {
    const auto start = clock::now();
    double operations = 0, elapsed = 0;
    for (; elapsed < seconds; elapsed = std::chrono::duration<double>(clock::now() - start).count())
      operations += multiply_add(10000);
    rate = operations / elapsed;
  };
  for (int i = 1; i < threads; i++) others.emplace_back(measure, std::ref(rates[i]));
  measure(rates[0]);
  for (std::thread& thread : others) thread.join();
  return std::accumulate(rates.begin(), rates.end(), 0.0);
}
