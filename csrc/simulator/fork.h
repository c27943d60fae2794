// A fork copies the memory of a process, and of its threads only the one that calls it. What another thread is in the
// middle of stays half done in the child for ever: a lock it holds, a list it appends to. So a fork waits until no
// thread is in the middle of anything here, and no thread outlives the launch it serves.
#pragma once

namespace convlab::sim {

class ForkWaits {  // while one lives; they nest
 public:
  ForkWaits();
  ~ForkWaits();
  ForkWaits(const ForkWaits&) = delete;
};

}  // namespace convlab::sim
