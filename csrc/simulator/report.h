// What went wrong in a kernel, and how it leaves the kernel.
#pragma once
#include <string>

#include "simulator/runtime.h"
#include "simulator/source_lines.h"

namespace convlab::sim {

// A place in a kernel: as the kernel gave it (Site), or as the address after a call or behind a faulting instruction.
class Where {
 public:
  Where() = default;
  Where(Site site) : site_(site), known_(true) {}
  Where(const void* return_address) : return_address_(return_address), known_(true) {}
  bool known() const { return known_; }
  Site site() const { return site_; }
  const void* return_address() const { return return_address_; }
  Place place() const;

 private:
  Site site_;
  const void* return_address_ = nullptr;
  bool known_ = false;
};

struct Report {
  std::string what;  // one line
  Where where = {};
  std::string other = "";  // what came before, or who waits where
  Where other_where = {};
};

// Ends the running block and makes run() throw an Error; outside a kernel it throws. It does not throw inside one: the
// compiler takes instrumentation hooks for functions that never do. So it switches to the launching context instead,
// and nothing on the kernel's stacks is destroyed (a report leaks the few bytes of its temporaries).
[[noreturn]] void fail(Report report);

std::string text(Site site);
std::string text(uint3 v);

}  // namespace convlab::sim
