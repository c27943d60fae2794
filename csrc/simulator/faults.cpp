#include "simulator/faults.h"

#include <signal.h>
#include <ucontext.h>

#include <mutex>
#include <vector>

#include "simulator/device_memory.h"
#include "simulator/fiber.h"
#include "simulator/runner.h"
#include "simulator/watchdog.h"

namespace convlab::sim {
namespace {

// Traps of the compiler are SIGILL on x86-64 and SIGTRAP on aarch64. SIGURG, ignored by default, is the watchdog's.
constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, kWatchdogSignal};
constexpr int kCount = sizeof kSignals / sizeof *kSignals;

struct Fault {  // of the calling OS thread, from the handler to the landing
  int signal;
  const void* address;
  Where where;
  Watch::End end;  // what the watchdog said
};
thread_local Fault fault;

struct Handlers {
  std::mutex mutex;
  int launches = 0;
  struct sigaction before[kCount];
};

Handlers& handlers() {
  static Handlers h;
  return h;
}

[[noreturn]] void report_watchdog(Watch::End end, const Where& interrupted) {
  if (end == Watch::End::interrupted) fail({"the launch was interrupted", interrupted});
  char seconds[32];
  snprintf(seconds, sizeof seconds, "%g", watchdog_seconds());
  fail({std::string("a thread has run for ") + seconds +
            " s of CPU time without reaching a barrier, a warp operation or its end: an endless loop, or a wait "
            "for another thread"
            " (here a thread runs until it waits at one of those)",
        interrupted});
}

// Runs on the fiber's emptied stack, as if the kernel had called it.
void land() {
  const Fault f = fault;
  switch (f.signal) {
    case SIGFPE: fail({"integer division by zero, or the quotient overflows", f.where});
    case SIGILL:
    case SIGTRAP: fail({"the kernel executed a trap", f.where});
    case kWatchdogSignal: report_watchdog(f.end, f.where);
    default:
      fail({f.address ? "illegal memory access: " + describe_address(f.address)
                      : "illegal memory access: null, not an address at all, or a misaligned vector",
            f.where});
  }
}

extern const char this_library_begins[] asm("__ehdr_start") __attribute__((visibility("hidden")));
extern const char this_library_code_ends[] asm("etext") __attribute__((visibility("hidden")));

#if defined(CONVLAB_SIM_CHECK)
extern const char hooks_begin[] asm("__start_convlab_hooks") __attribute__((visibility("hidden")));  // tsan_hooks.cpp
extern const char hooks_end[] asm("__stop_convlab_hooks") __attribute__((visibility("hidden")));
bool in_hook(const void* pc) { return pc >= hooks_begin && pc < hooks_end; }
#else
bool in_hook(const void*) { return false; }
#endif

// In a kernel, or in what a kernel calls and the compiler has not inlined.
bool in_kernel_code(const void* pc) { return pc >= this_library_begins && pc < this_library_code_ends && !in_hook(pc); }

void on_signal(int signal, siginfo_t* info, void* machine_state) {
  Runner* r = running();
  const void* pc = interrupted_at(machine_state);
  Watch::End end{};
  if (signal == kWatchdogSignal) {
    // Only where nothing is half done: in a kernel's own code. Elsewhere it comes again.
    if (!r || !r->watch || (end = r->watch->end()) == Watch::End::no) return;
    if (!r->current || r->in_runtime || !in_kernel_code(pc)) return;
  } else if (!r || !r->current) {  // not a kernel's: to whom it belongs, when the instruction is repeated
    for (int i = 0; i < kCount; i++)
      if (kSignals[i] == signal) sigaction(signal, &handlers().before[i], nullptr);
    return;
  }
  fault = {signal, signal == SIGSEGV || signal == SIGBUS ? info->si_addr : nullptr,
           r->in_runtime ? r->called_from : Where(static_cast<const char*>(pc) + 1), end};
  r->in_runtime = true;
  const unsigned thread = r->current->index;
  redirect(machine_state, r->stack_bottom(thread), r->stack_top(thread), land);
}

}  // namespace

FaultGuard::FaultGuard() {
  Handlers& h = handlers();
  std::lock_guard lock(h.mutex);
  if (h.launches++) return;
  struct sigaction action{};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER | SA_RESTART;
  for (int i = 0; i < kCount; i++) sigaction(kSignals[i], &action, &h.before[i]);
}

FaultGuard::~FaultGuard() {
  Handlers& h = handlers();
  std::lock_guard lock(h.mutex);
  if (--h.launches) return;
  for (int i = 0; i < kCount; i++) sigaction(kSignals[i], &h.before[i], nullptr);
}

struct AlternateStack::Saved {
  std::vector<char> stack;
  stack_t before;
};

AlternateStack::AlternateStack() : saved_(new Saved{std::vector<char>(64 * 1024), {}}) {
  stack_t s{};
  s.ss_sp = saved_->stack.data();
  s.ss_size = saved_->stack.size();
  sigaltstack(&s, &saved_->before);
}

AlternateStack::~AlternateStack() {
  sigaltstack(&saved_->before, nullptr);
  delete saved_;
}

}  // namespace convlab::sim
