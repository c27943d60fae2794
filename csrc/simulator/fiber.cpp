#include "simulator/fiber.h"

#include <ucontext.h>

#include <algorithm>
#include <cstdint>

#if !defined(CONVLAB_SIM_UCONTEXT)

// Saves what the calling convention lets a function rely on across a call, and nothing else.
extern "C" void convlab_sim_switch(void** save_stack_pointer, void* load_stack_pointer);

#if defined(__x86_64__)
asm(R"(
.text
.globl convlab_sim_switch
.hidden convlab_sim_switch
.type convlab_sim_switch,@function
convlab_sim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size convlab_sim_switch,.-convlab_sim_switch
)");
#else
asm(R"(
.text
.globl convlab_sim_switch
.hidden convlab_sim_switch
.type convlab_sim_switch,%function
convlab_sim_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8,  d9,  [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8,  d9,  [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size convlab_sim_switch,.-convlab_sim_switch
)");
#endif

#endif

namespace convlab::sim {

#if defined(CONVLAB_SIM_UCONTEXT)

void start_at(Context& context, char* bottom, char* top, void (*entry)()) {
  getcontext(&context.state);
  context.state.uc_stack.ss_sp = bottom;
  context.state.uc_stack.ss_size = size_t(top - bottom);
  context.state.uc_link = nullptr;
  makecontext(&context.state, entry, 0);
}

void switch_context(Context& from, Context& to) { swapcontext(&from.state, &to.state); }

void redirect(void*, char* bottom, char* top, void (*entry)()) {
  Context landing;
  start_at(landing, bottom, top, entry);
  setcontext(&landing.state);  // leaves the handler for good
}

#else

namespace {

uintptr_t aligned_top(char* top) { return reinterpret_cast<uintptr_t>(top) & ~uintptr_t(15); }

}  // namespace

// The frame that convlab_sim_switch pops: the saved registers, of which only the return address matters.
void start_at(Context& context, char*, char* top, void (*entry)()) {
#if defined(__x86_64__)
  constexpr int kFrame = 8,
                kReturn = 6;  // six registers, the return address, and one word so that entry() starts as after a call
#else
  constexpr int kFrame = 20, kReturn = 11;  // x30
#endif
  void** frame = reinterpret_cast<void**>(aligned_top(top)) - kFrame;
  std::fill(frame, frame + kFrame, nullptr);
  frame[kReturn] = reinterpret_cast<void*>(entry);
  context.stack_pointer = frame;
}

void switch_context(Context& from, Context& to) { convlab_sim_switch(&from.stack_pointer, to.stack_pointer); }

void redirect(void* machine_state, char*, char* top, void (*entry)()) {
  auto& registers = static_cast<ucontext_t*>(machine_state)->uc_mcontext;
#if defined(__x86_64__)
  const uintptr_t sp = aligned_top(top) - 8;  // as after a call: the return address, which is never used
  *reinterpret_cast<void**>(sp) = nullptr;
  registers.gregs[REG_RSP] = greg_t(sp);
  registers.gregs[REG_RIP] = greg_t(entry);
#else
  registers.sp = aligned_top(top);
  registers.regs[30] = 0;
  registers.pc = reinterpret_cast<uintptr_t>(entry);
#endif
}

#endif

const void* interrupted_at(void* machine_state) {
#if defined(__x86_64__)
  return reinterpret_cast<const void*>(static_cast<ucontext_t*>(machine_state)->uc_mcontext.gregs[REG_RIP]);
#elif defined(__aarch64__)
  return reinterpret_cast<const void*>(static_cast<ucontext_t*>(machine_state)->uc_mcontext.pc);
#else
  (void)machine_state;
  return nullptr;
#endif
}

}  // namespace convlab::sim
