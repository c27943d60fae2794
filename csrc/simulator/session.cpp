#include "simulator/session.h"

#include "simulator/runtime.h"

namespace convlab::sim {

Traffic Session::traffic_of_all() const {
  Traffic all = traffic;
  for (auto& [at, sums] : all)
    if (const auto found = blocks.find({at.kernel_source, at.kernel}); found != blocks.end())
      sums = sums.times(double(found->second.launched) / double(found->second.ran));
  return all;
}

const char* name_of(Order order) {
  return order == Order::forward ? "forward" : order == Order::reverse ? "reverse" : "random";
}

std::shared_ptr<Session>& current_session() {
  thread_local std::shared_ptr<Session> session;
  return session;
}

int multiprocessors() { return current_session() ? current_session()->multiprocessors : Session{}.multiprocessors; }
int capability() { return current_session() ? current_session()->capability : Session{}.capability; }

unsigned& os_threads() {
  static unsigned threads = 0;
  return threads;
}

}  // namespace convlab::sim
