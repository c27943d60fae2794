// The checking build's view of every memory access of a kernel: bounds, races, uninitialised reads, writes to inputs.
// Compiled kernels report their accesses through the hooks in tsan_hooks.cpp. In the plain build there is nothing to
// check.
#pragma once
#include "simulator/device_memory.h"
#include "simulator/runner.h"

namespace convlab::sim {

#if defined(CONVLAB_SIM_CHECK)

constexpr bool kChecking = true;

// Whether an access is of no interest: to the thread's own stack, its built-in variables, or (a read, unless they are
// counted) to an input. Most accesses are, so this comes first.
inline bool is_private_or_input(const Runner& runner, const char* p, size_t bytes, Access access) {
  if (runner.on_own_stack(p) || size_t(p - reinterpret_cast<const char*>(&builtins)) < sizeof builtins) return true;
  if (access != Access::read || runner.counter) return false;
  const Buffer* b = buffer_at(p);
  return b && b->read_only && p >= b->begin && p + bytes <= b->begin + b->bytes;
}

// An access by the running thread. Call it with Runner::in_runtime set.
void check_access(Runner& runner, const void* address, size_t bytes, Access access, const Where& where);

// The place that a Mark or a TrafficCounter keeps as a number.
Place place_of_mark(uint32_t place);

// Host code that dereferences a pointer to device memory: noted, since the hooks cannot throw, and told by the next
// launch, or whoever asks.
inline bool kernels_may_run = false;  // a launch that the host has not waited for, of which managed memory asks
void note_host_access(const void* address, Access access, const void* return_address);
void fail_if_the_host_touched_device_memory();  // throws Error

// So much of a buffer has contents now, whoever reads it.
void written_by_the_host(Buffer& buffer, size_t offset, size_t bytes);

// The marks in the runner's epochs must not outlive their numbers.
void begin_checked_launch(Runner& runner);

#else

constexpr bool kChecking = false;
inline void check_access(Runner&, const void*, size_t, Access, const Where&) {}
inline void begin_checked_launch(Runner&) {}
inline void fail_if_the_host_touched_device_memory() {}
Place place_of_mark(uint32_t place);  // nothing asks

#endif

}  // namespace convlab::sim
