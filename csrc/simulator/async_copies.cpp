#include "simulator/async_copies.h"

#include <cstring>
#include <string>
#include <utility>

#include "simulator/check.h"
#include "simulator/runner.h"

namespace convlab::sim {

void AsyncCopies::clear() {
  pending_.clear();
  groups_ = 0;
}

void AsyncCopies::land(const Copy& copy) {
  std::memset(copy.shared, 0, copy.bytes);
  if (copy.source_bytes) std::memcpy(copy.shared, copy.global, copy.source_bytes);
}

void AsyncCopies::issue(Runner& runner, void* shared, const void* global, unsigned bytes, unsigned source_bytes,
                        Site site) {
  if (bytes != 4 && bytes != 8 && bytes != 16)
    fail({"cp.async of " + std::to_string(bytes) + " bytes: it copies 4, 8 or 16", site});
  if (source_bytes > bytes)
    fail({"cp.async with " + std::to_string(source_bytes) + " source bytes, more than the " + std::to_string(bytes) +
              " it copies",
          site});
  if (reinterpret_cast<uintptr_t>(shared) % bytes || (source_bytes && reinterpret_cast<uintptr_t>(global) % bytes))
    fail({"misaligned cp.async: both addresses must be multiples of " + std::to_string(bytes), site});
  if (!runner.shared.contains(static_cast<const char*>(shared)))
    fail({"cp.async to an address that is not in shared memory", site});
  const bool at_once = runner.order == Order::reverse || (runner.order == Order::random && runner.random_bit());
  const Copy copy{shared, global, bytes, source_bytes, groups_, at_once, site};
  pending_.push_back(copy);
  check_access(runner, shared, bytes, Access::write, site);
  if (source_bytes) check_access(runner, global, source_bytes, Access::read, site);
  if (at_once) land(copy);
}

void AsyncCopies::wait(unsigned groups_that_may_be_pending) {
  Runner& runner = *running();
  TrafficCounter* const counter = std::exchange(runner.counter, nullptr);  // it counted them when they were issued
  size_t kept = 0;
  for (const Copy& copy : pending_) {
    if (copy.group >= groups_ - int(groups_that_may_be_pending)) {
      pending_[kept++] = copy;
      continue;
    }
    check_access(runner, copy.shared, copy.bytes, Access::write, copy.site);  // it may land as late as now
    runner.called_from = copy.site;
    if (!copy.landed) land(copy);
  }
  pending_.resize(kept, Copy{});
  runner.counter = counter;
}

void async_copy(void* shared, const void* global, unsigned bytes, unsigned source_bytes, Site site) {
  Runner& r = *running();
  InRuntime guard(r, site);
  r.current->copies.issue(r, shared, global, bytes, source_bytes, site);
}

void async_commit() { running()->current->copies.commit(); }

void async_wait(unsigned groups_that_may_be_pending) {
  Runner& r = *running();
  InRuntime guard(r, Where());
  r.current->copies.wait(groups_that_may_be_pending);
}

}  // namespace convlab::sim
