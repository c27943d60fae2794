#include "simulator/api.h"

#include <map>

#include "simulator/fork.h"
#include "simulator/interrupt.h"
#include "simulator/session.h"

namespace convlab::sim {
namespace {

struct Sessions {
  std::mutex mutex;
  std::map<uint64_t, std::shared_ptr<Session>> open;
  uint64_t newest = 0;
};

Sessions& sessions() {
  static Sessions s;
  return s;
}

std::shared_ptr<Session> find(uint64_t id) {
  std::lock_guard lock(sessions().mutex);
  const auto at = sessions().open.find(id);
  return at == sessions().open.end() ? nullptr : at->second;
}

uint64_t open_session(int order, uint64_t seed, int count, int only_plan, uint64_t one_block_in, int multiprocessors,
                      int capability) {
  const ForkWaits until_it_is_done;
  const auto session = std::make_shared<Session>();
  session->order = Order(order), session->seed = seed, session->count = count, session->only_plan = only_plan;
  session->one_block_in = one_block_in, session->multiprocessors = multiprocessors;
  session->capability = capability;
  std::lock_guard lock(sessions().mutex);
  session->id = ++sessions().newest;
  sessions().open[session->id] = session;
  return session->id;
}

void close_session(uint64_t id) {
  const ForkWaits until_it_is_done;
  std::lock_guard lock(sessions().mutex);
  sessions().open.erase(id);
}

uint64_t enter_session(uint64_t id, int interruptible) {
  const ForkWaits until_it_is_done;
  const uint64_t before = current_session() ? current_session()->id : 0;
  current_session() = find(id);
  let_interrupt(interruptible);
  return before;
}

int interrupted() { return Interrupt::here().came(); }

// A copy, so that nothing is held while the callers' functions run.
std::vector<LaunchRecord> launches_of(uint64_t id) {
  const ForkWaits until_it_is_done;
  const auto session = find(id);
  if (!session) return {};
  std::lock_guard lock(session->mutex);
  return session->launches;
}

Traffic traffic_of(uint64_t id) {
  const ForkWaits until_it_is_done;
  const auto session = find(id);
  if (!session) return {};
  std::lock_guard lock(session->mutex);
  return session->traffic_of_all();
}

void launches(uint64_t id, void (*each)(void*, const LaunchRow*), void* context) {
  for (const LaunchRecord& l : launches_of(id)) {
    const LaunchRow row{l.kernel.c_str(),
                        l.source.c_str(),
                        {l.grid.x, l.grid.y, l.grid.z},
                        {l.block.x, l.block.y, l.block.z},
                        l.shared_bytes};
    each(context, &row);
  }
}

void traffic(uint64_t id, void (*each)(void*, const TrafficRow*), void* context) {
  for (const auto& [at, sums] : traffic_of(id)) {
    const TrafficRow row{at.kernel.c_str(), at.kernel_source.c_str(),
                         at.file.c_str(),   at.line,
                         at.memory.c_str(), at.shared,
                         int(at.access),    sums.requests,
                         sums.bytes,        sums.cost,
                         sums.ideal,        sums.missed};
    each(context, &row);
  }
}

void set_os_threads(unsigned threads) { os_threads() = threads; }

}  // namespace
}  // namespace convlab::sim

const convlab::sim::Api* convlab_simulator() {
  using namespace convlab::sim;
  static const Api api{open_session, close_session, enter_session, interrupted, launches, traffic, set_os_threads};
  return &api;
}
