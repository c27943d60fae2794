#include "simulator/interrupt.h"

#include <signal.h>

#include <atomic>
#include <mutex>

namespace convlab::sim {
namespace {

std::atomic<uint64_t> signals{0};
static_assert(std::atomic<uint64_t>::is_always_lock_free);  // or a handler must not touch it

struct Handler {
  std::mutex mutex;
  int threads = 0;  // whose launches may be interrupted
  struct sigaction before{};
};

Handler& handler() {
  static Handler h;
  return h;
}

struct Here {
  bool looks = false;
  uint64_t before = 0;
};
constinit thread_local Here here;

void on_interrupt(int signal, siginfo_t* info, void* machine_state) {
  signals++;
  const struct sigaction& before = handler().before;
  if (before.sa_flags & SA_SIGINFO) before.sa_sigaction(signal, info, machine_state);
  else before.sa_handler(signal);
}

bool is_ours(const struct sigaction& action) {
  return action.sa_flags & SA_SIGINFO && action.sa_sigaction == on_interrupt;
}

void install(Handler& h) {
  struct sigaction now{};
  sigaction(SIGINT, nullptr, &now);
  if (is_ours(now)) return;
  if (!(now.sa_flags & SA_SIGINFO) && (now.sa_handler == SIG_DFL || now.sa_handler == SIG_IGN)) return;
  h.before = now;
  struct sigaction action{};
  action.sa_sigaction = on_interrupt;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;  // a fiber's stack is small
  sigaction(SIGINT, &action, nullptr);
}

void remove(Handler& h) {
  struct sigaction now{};
  sigaction(SIGINT, nullptr, &now);
  if (is_ours(now)) sigaction(SIGINT, &h.before, nullptr);  // or somebody set another meanwhile
}

}  // namespace

void let_interrupt(bool yes) {
  if (yes == here.looks) return;
  Handler& h = handler();
  std::lock_guard lock(h.mutex);
  if (yes && !h.threads++) install(h);
  if (!yes && !--h.threads) remove(h);
  here = {yes, signals};
}

Interrupt Interrupt::here() {
  Interrupt i;
  i.looked_for_ = sim::here.looks, i.before_ = sim::here.before;
  return i;
}

bool Interrupt::came() const { return looked_for_ && signals != before_; }

}  // namespace convlab::sim
