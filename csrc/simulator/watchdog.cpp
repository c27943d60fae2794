#include "simulator/watchdog.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>

#include "simulator/runner.h"

namespace convlab::sim {
namespace {

constexpr double kDefaultSeconds = 60;
constexpr long kPeriod = 100'000'000;  // ns
constexpr long kInsisting = 2'000'000;  // a signal counts only where it meets the kernel's own code

double processor_seconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

}  // namespace

double& watchdog_seconds() {
  static double seconds = [] {
    const char* asked = getenv("CONVLAB_SIMULATOR_TIME_LIMIT");
    const double value = asked ? atof(asked) : 0;
    return value > 0 ? value : kDefaultSeconds;
  }();
  return seconds;
}

Watch::Watch(Runner& runner, const Interrupt& interrupt)
    : runner_(runner), interrupt_(interrupt), progress_(runner.progress()), since_(processor_seconds()) {
  watchdog_seconds();  // reads the environment, which a signal handler must not
  sigevent event{};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = kWatchdogSignal;
  event._sigev_un._tid = pid_t(syscall(SYS_gettid));
  has_timer_ = timer_create(CLOCK_MONOTONIC, &event, &timer_) == 0;  // where there are no more timers, nobody watches
  runner.watch = this;
  interrupt_after(kPeriod);
}

Watch::~Watch() {
  runner_.watch = nullptr;
  if (has_timer_) timer_delete(timer_);
}

void Watch::interrupt_after(long nanoseconds) {
  if (has_timer_) {
    const itimerspec once{{}, {0, nanoseconds}};
    timer_settime(timer_, 0, &once, nullptr);
  }
}

Watch::End Watch::end() {
  const double now = processor_seconds();
  if (const uint64_t progress = runner_.progress(); progress != progress_) progress_ = progress, since_ = now;
  const End end = interrupt_.came() ? End::interrupted : now - since_ > watchdog_seconds() ? End::overdue : End::no;
  interrupt_after(end == End::no ? kPeriod : kInsisting);
  return end;
}

}  // namespace convlab::sim
