#include "simulator/kernel_info.h"

#include <cstring>
#include <map>
#include <mutex>

#include "simulator/elf_file.h"
#include "simulator/source_lines.h"

namespace convlab::sim {
namespace {

// The no-operations that __launch_bounds__ puts at the beginning of a kernel (cuda_on_host.h), and whether g++ gives
// the kernel's line to what comes behind them.
#if defined(__aarch64__)
constexpr unsigned char kNop[] = {0x1f, 0x20, 0x03, 0xd5};
constexpr bool kLineIsBehind = true;
#else
constexpr unsigned char kNop[] = {0x90};
constexpr bool kLineIsBehind = false;
#endif

unsigned launch_bounds_of(const char* kernel) {
  unsigned count = 0;
  while (memcmp(kernel + count * sizeof kNop, kNop, sizeof kNop) == 0) count++;
  return count;
}

}  // namespace

namespace {

std::mutex mutex;  // of what is known

std::map<const void*, KernelInfo>& known() {
  static std::map<const void*, KernelInfo> all;
  return all;
}

}  // namespace

void name_kernel(const void* kernel, const std::string& name, Site launched_from) {
  std::lock_guard lock(mutex);
  known().try_emplace(
      kernel, KernelInfo{name, normal(launched_from.file_name()) + ":" + std::to_string(launched_from.line()), 0});
}

const KernelInfo& kernel_info(const void* kernel) {
  std::lock_guard lock(mutex);
  const auto [at, fresh] = known().try_emplace(kernel);
  if (fresh) {
    const char* code = static_cast<const char*>(kernel);
    const unsigned bounds = launch_bounds_of(code);
    const Place place = place_of_code(code + (kLineIsBehind ? bounds * sizeof kNop : 0));
    std::string name = ElfFile::of_this_library().function_at(kernel);
    at->second = {name.empty() ? "of unknown name" : name,
                  place.file.empty() ? "" : place.file + ":" + std::to_string(place.line), bounds};
  }
  return at->second;
}

}  // namespace convlab::sim
