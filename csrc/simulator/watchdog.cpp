#include "simulator/watchdog.h"

#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <vector>

#include "simulator/runner.h"

namespace convlab::sim {
namespace {

constexpr double kDefaultSeconds = 60;
constexpr std::chrono::milliseconds kPeriod(100);
constexpr std::chrono::milliseconds kInsisting(2);  // a signal counts only where it meets the kernel's own code

struct Watched {
  Runner* runner;
  pthread_t thread;
  uint64_t progress;
  double since;  // processor time of the thread when it last made progress
};

struct Watchdog {
  std::mutex mutex;
  std::condition_variable wake;
  std::vector<Watched> watched;
  pid_t process = 0;  // that the watching thread runs in: a fork leaves it behind
};

Watchdog& watchdog() {
  static auto* w = new Watchdog;  // never destroyed: its thread may outlive the statics
  return *w;
}

double processor_seconds(pthread_t thread) {
  clockid_t clock;
  timespec t{};
  if (pthread_getcpuclockid(thread, &clock) == 0) clock_gettime(clock, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

void look_at(Watched& w) {
  const double now = processor_seconds(w.thread);
  if (const uint64_t progress = w.runner->progress(); progress != w.progress) {
    w.progress = progress, w.since = now;
    w.runner->overdue = false;
  } else if (now - w.since > watchdog_seconds()) {
    w.runner->overdue = true;
    pthread_kill(w.thread, kWatchdogSignal);
  }
}

void keep_watch() {
  Watchdog& dog = watchdog();
  std::unique_lock lock(dog.mutex);
  for (;;) {
    if (dog.watched.empty()) dog.wake.wait(lock, [&] { return !dog.watched.empty(); });
    const bool insist =
        std::any_of(dog.watched.begin(), dog.watched.end(), [](const Watched& w) { return w.runner->overdue; });
    dog.wake.wait_for(lock, insist ? kInsisting : kPeriod, [&] { return dog.watched.empty(); });
    for (Watched& w : dog.watched) look_at(w);
  }
}

}  // namespace

double& watchdog_seconds() {
  static double seconds = [] {
    const char* asked = getenv("CONVLAB_SIMULATOR_TIME_LIMIT");
    const double value = asked ? atof(asked) : 0;
    return value > 0 ? value : kDefaultSeconds;
  }();
  return seconds;
}

Watch::Watch(Runner& runner) : runner_(&runner) {
  Watchdog& dog = watchdog();
  std::lock_guard lock(dog.mutex);
  if (dog.process != getpid()) {
    dog.process = getpid();
    sigset_t all, before;  // the watching thread takes no signals: Python's belong to Python's threads
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    std::thread(keep_watch).detach();
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
  runner.overdue = false;
  dog.watched.push_back({runner_, pthread_self(), runner.progress(), processor_seconds(pthread_self())});
  if (dog.watched.size() == 1) dog.wake.notify_one();
}

Watch::~Watch() {
  Watchdog& dog = watchdog();
  std::lock_guard lock(dog.mutex);
  dog.watched.erase(
      std::find_if(dog.watched.begin(), dog.watched.end(), [this](const Watched& w) { return w.runner == runner_; }));
}

}  // namespace convlab::sim
