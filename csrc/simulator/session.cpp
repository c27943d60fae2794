#include "simulator/session.h"

namespace convlab::sim {

const char* name_of(Order order) {
  return order == Order::forward ? "forward" : order == Order::reverse ? "reverse" : "random";
}

std::shared_ptr<Session>& current_session() {
  thread_local std::shared_ptr<Session> session;
  return session;
}

unsigned& os_threads() {
  static unsigned threads = 0;
  return threads;
}

}  // namespace convlab::sim
