// The checking build's view of every memory access of a kernel: bounds, races, uninitialised reads, writes to inputs.
// Compiled kernels report their accesses through the hooks in tsan_hooks.cpp. In the plain build there is nothing to check.
#pragma once
#include "runner.h"

namespace convlab::sim {

#if defined(CONVLAB_SIM_CHECK)

constexpr bool kChecking = true;

// An access by the running thread. Call it with Runner::in_runtime set.
void check_access(Runner& runner, const void* address, size_t bytes, Access access, const Where& where);

// The place that a Mark or a TrafficCounter keeps as a number.
Place place_of_mark(uint32_t place);

// The marks in the runner's epochs must not outlive their numbers.
void begin_checked_launch(Runner& runner);

#else

constexpr bool kChecking = false;
inline void check_access(Runner&, const void*, size_t, Access, const Where&) {}
inline void begin_checked_launch(Runner&) {}
Place place_of_mark(uint32_t place);  // nothing asks

#endif

}  // namespace convlab::sim
