// Switching stacks: the one thing here that the C++ language has no word for. A Context is a suspended flow of
// execution. x86-64 and aarch64 switch in a few instructions (about 5 ns); other machines use ucontext (about 160 ns,
// two system calls).
#pragma once
#include <cstddef>

#if !defined(CONVLAB_SIM_UCONTEXT) && !defined(__x86_64__) && !defined(__aarch64__)
#define CONVLAB_SIM_UCONTEXT 1
#endif

#if defined(CONVLAB_SIM_UCONTEXT)
#include <ucontext.h>
#endif

namespace convlab::sim {

struct Context {
#if defined(CONVLAB_SIM_UCONTEXT)
  ucontext_t state;
#else
  void* stack_pointer;
#endif
};

// Makes `context` one that starts entry() on the stack [bottom, top) when it is first switched to. entry never returns.
void start_at(Context& context, char* bottom, char* top, void (*entry)());

// Suspends the running flow into `from` and resumes `to`.
void switch_context(Context& from, Context& to);

// From a signal handler: lets the interrupted flow continue in entry(), on the empty stack [bottom, top), instead of
// where it was. `machine_state` is the handler's third argument.
void redirect(void* machine_state, char* bottom, char* top, void (*entry)());

// Where the interrupted flow was.
const void* interrupted_at(void* machine_state);

}  // namespace convlab::sim
