// cp.async of one thread: copies to shared memory that land at some time between their issue and the wait. With order
// "forward" they land when they are waited for, with "reverse" at once, with "random" each by the toss of a coin.
#pragma once
#include <cstddef>
#include <vector>

#include "simulator/runtime.h"

namespace convlab::sim {

class Runner;

class AsyncCopies {
 public:
  void clear();
  bool empty() const { return pending_.empty(); }
  Site first_site() const { return pending_.front().site; }
  void issue(Runner& runner, void* shared, const void* global, unsigned bytes, unsigned source_bytes, Site site);
  // Whether a copy that has not been waited for writes there.
  bool covers(const char* p, size_t bytes) const {
    for (const Copy& copy : pending_)
      if (p < static_cast<char*>(copy.shared) + copy.bytes && p + bytes > copy.shared) return true;
    return false;
  }
  void commit() { groups_++; }
  void wait(unsigned groups_that_may_be_pending);

 private:
  struct Copy {
    void* shared;
    const void* global;
    unsigned bytes, source_bytes;
    int group;
    bool landed;
    Site site;
  };
  static void land(const Copy& copy);
  std::vector<Copy> pending_;
  int groups_ = 0;  // committed so far
};

}  // namespace convlab::sim
