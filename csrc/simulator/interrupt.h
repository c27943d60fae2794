// Ctrl-C during a launch. Python notes the signal and acts on it when its own code runs again, which may be long after:
// so a launch that may be interrupted looks for the signal itself, and ends.
#pragma once
#include <cstdint>

namespace convlab::sim {

// From now on, SIGINT ends (or, again, does not end) the launches of the calling OS thread; it goes to whoever handled
// it before as well. Only where somebody did.
void let_interrupt(bool yes);

class Interrupt {  // as the calling OS thread's launches see it
 public:
  static Interrupt here();
  bool came() const;  // since let_interrupt(true); a signal handler may ask

 private:
  bool looked_for_ = false;
  uint64_t before_ = 0;  // signals that came before
};

}  // namespace convlab::sim
