// Ends a thread that runs on and on, or that is interrupted. Threads of a block are switched only where they meet, so one that loops forever,
// or waits for another by polling memory, would hang the process.
#pragma once
#include <signal.h>
#include <time.h>

#include <cstdint>

#include "simulator/interrupt.h"

namespace convlab::sim {

class Runner;

constexpr int kWatchdogSignal = SIGURG;

// CPU time that a thread may take from one meeting with others to the next: CONVLAB_SIMULATOR_TIME_LIMIT, or a
// minute, which is far more than a correct kernel takes on the slowest machine.
double& watchdog_seconds();

// Over the calling OS thread while it runs blocks. A timer interrupts it now and then with the watchdog's signal: there
// is no watching thread, which a fork would leave behind.
class Watch {
 public:
  Watch(Runner& runner, const Interrupt& interrupt);
  ~Watch();
  Watch(const Watch&) = delete;
  // Whether the thread must end, and why. Asked by the signal's handler; the signal comes again.
  enum class End { no, overdue, interrupted };
  End end();

 private:
  void interrupt_after(long nanoseconds);

  Runner& runner_;
  const Interrupt interrupt_;
  timer_t timer_;
  bool has_timer_;
  uint64_t progress_;
  double since_;  // CPU time of the thread when it last made progress
};

}  // namespace convlab::sim
