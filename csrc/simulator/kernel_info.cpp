#include "kernel_info.h"

#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>

#include "elf_file.h"
#include "source_lines.h"

// The addresses of the no-operations that __launch_bounds__ puts in front of kernels (cuda_on_host.h). The compiler collects
// them in a section, and the linker names its ends.
extern "C" {
extern const char* const __start___patchable_function_entries[] __attribute__((visibility("hidden")));
extern const char* const __stop___patchable_function_entries[] __attribute__((visibility("hidden")));

// There is such a section also where no kernel has bounds.
__attribute__((patchable_function_entry(1, 1), visibility("hidden"))) void convlab_sim_one_entry() {}
}

namespace convlab::sim {
namespace {

#if defined(__aarch64__)
constexpr unsigned char kNop[] = {0x1f, 0x20, 0x03, 0xd5};
#else
constexpr unsigned char kNop[] = {0x90};
#endif

unsigned launch_bounds_of(const char* kernel) {
  constexpr std::ptrdiff_t kMost = 1024 * sizeof kNop;
  std::ptrdiff_t nearest = kMost + 1;
  for (auto entry = __start___patchable_function_entries; entry != __stop___patchable_function_entries; entry++)
    if (*entry < kernel && kernel - *entry < nearest) nearest = kernel - *entry;
  if (nearest > kMost) return 0;
  for (const char* p = kernel - nearest; p != kernel; p += sizeof kNop)
    if (memcmp(p, kNop, sizeof kNop) != 0) return 0;  // another kernel lies between
  return unsigned(nearest / std::ptrdiff_t(sizeof kNop));
}

}  // namespace

const KernelInfo& kernel_info(const void* kernel) {
  static std::mutex mutex;
  static std::map<const void*, KernelInfo> known;
  std::lock_guard lock(mutex);
  const auto [at, fresh] = known.try_emplace(kernel);
  if (fresh) {
    const Place place = place_of_function(kernel);
    std::string name = ElfFile::of_this_library().function_at(kernel);
    at->second = {name.empty() ? "of unknown name" : name, place.file.empty() ? "" : place.file + ":" + std::to_string(place.line),
                  launch_bounds_of(static_cast<const char*>(kernel))};
  }
  return at->second;
}

}  // namespace convlab::sim
