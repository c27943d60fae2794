// Faults of the processor in a kernel (an unmapped address, a division by zero) become reports. Signal handlers are in
// place only while a launch runs; faults outside kernels go to whoever handled them before.
#pragma once

namespace convlab::sim {

class FaultGuard {  // one launch; launches may overlap
 public:
  FaultGuard();
  ~FaultGuard();
  FaultGuard(const FaultGuard&) = delete;
};

class AlternateStack {  // for the handlers of the calling OS thread: a fiber's own stack may be what has overflowed
 public:
  AlternateStack();
  ~AlternateStack();
  AlternateStack(const AlternateStack&) = delete;

 private:
  struct Saved;
  Saved* saved_;
};

}  // namespace convlab::sim
