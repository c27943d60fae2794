// The functions that g++ -fsanitize=thread calls before every memory access of a kernel. The real runtime library of
// that sanitizer is never linked.
#if defined(CONVLAB_SIM_CHECK)

#include "simulator/check.h"

namespace convlab::sim {
namespace {

__attribute__((noinline, cold)) void by_the_host(const void* address, Access kind, const void* return_address) {
  if (in_device_memory(static_cast<const char*>(address))) note_host_access(address, kind, return_address);
}

inline __attribute__((always_inline)) void access(const void* address, size_t bytes, Access kind,
                                                  const void* return_address) {
  Runner* r = running();
  if (!r || !r->current) [[unlikely]]
    return by_the_host(address, kind, return_address);
  if (r->in_runtime) return;  // library code that the runtime shares with the kernels
  if (is_private_or_input(*r, static_cast<const char*>(address), bytes, kind)) return;
  InRuntime guard(*r, return_address);
  check_access(*r, address, bytes, kind, return_address);
}

}  // namespace
}  // namespace convlab::sim

using convlab::sim::Access;
using convlab::sim::access;

// In a section of their own, so that the watchdog can tell a hook from the kernel that called it.
#define CONVLAB_SIM_HOOK(name, bytes, kind)                            \
  __attribute__((section("convlab_hooks"))) void name(void* address) { \
    access(address, bytes, kind, __builtin_return_address(0));         \
  }
#define CONVLAB_SIM_HOOKS(bytes)                                        \
  CONVLAB_SIM_HOOK(__tsan_read##bytes, bytes, Access::read)             \
  CONVLAB_SIM_HOOK(__tsan_write##bytes, bytes, Access::write)           \
  CONVLAB_SIM_HOOK(__tsan_unaligned_read##bytes, bytes, Access::read)   \
  CONVLAB_SIM_HOOK(__tsan_unaligned_write##bytes, bytes, Access::write) \
  CONVLAB_SIM_HOOK(__tsan_volatile_read##bytes, bytes, Access::read)    \
  CONVLAB_SIM_HOOK(__tsan_volatile_write##bytes, bytes, Access::write)

extern "C" {

CONVLAB_SIM_HOOKS(1)
CONVLAB_SIM_HOOKS(2)
CONVLAB_SIM_HOOKS(4)
CONVLAB_SIM_HOOKS(8)
CONVLAB_SIM_HOOKS(16)
__attribute__((section("convlab_hooks"))) void __tsan_read_range(void* address, size_t bytes) {
  access(address, bytes, Access::read, __builtin_return_address(0));
}
__attribute__((section("convlab_hooks"))) void __tsan_write_range(void* address, size_t bytes) {
  access(address, bytes, Access::write, __builtin_return_address(0));
}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}

}  // extern "C"

#endif
