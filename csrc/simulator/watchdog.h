// Ends a thread that runs on and on. Threads of a block are switched only where they meet, so one that loops forever,
// or waits for another by polling memory, would hang the process.
#pragma once
#include <signal.h>

namespace convlab::sim {

class Runner;

constexpr int kWatchdogSignal = SIGURG;

// Processor time that a thread may take from one meeting with others to the next: CONVLAB_SIMULATOR_TIME_LIMIT, or a
// minute, which is far more than a correct kernel takes on the slowest machine.
double& watchdog_seconds();

class Watch {  // over the calling OS thread while it runs blocks
 public:
  explicit Watch(Runner& runner);
  ~Watch();
  Watch(const Watch&) = delete;

 private:
  Runner* runner_;
};

}  // namespace convlab::sim
