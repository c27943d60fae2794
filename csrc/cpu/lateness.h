// Whether other threads are worth waking, by what they cost lately. Torch-free.
#pragma once
#include <algorithm>
#include <atomic>

namespace convlab {

// A thread that calls shares its work with others, and waits for them once it has done its own part. On idle cores that
// is a few microseconds. Beside another busy program it can be milliseconds, because they wait for a core: work of less
// is then done by the calling thread alone. What was lost by a try is waited out many times over before the next, so
// that trying costs a few percent. Times are in seconds, `now` by any clock that does not go back.
class Lateness {
 public:
  static constexpr double kPatience = 32, kWeight = 0.25;  // of the latest try
  static constexpr double kMost = 8e-3;                    // to wait for a core: what is more has another reason

  // Whether to wake threads that would save so much
  bool worth(double saved, double now) const {
    return saved > cost_.load(std::memory_order_relaxed) || now > until_.load(std::memory_order_relaxed);
  }
  // A call's own part took `own` of `all` the call, and another part waited for its core up to `waited`. Late is what the
  // caller had done sooner alone. Parts are never of one size, and memory that is new to the process makes one take as
  // long as many others: what a part did itself is not late, and what lies between says nothing about how soon a thread
  // wakes.
  void note(double own, double all, double waited, double threads, double now) {
    const bool is_late = waited > (threads - 1) * own;
    if (!is_late && all > 1.25 * own) return;
    const double late = is_late ? std::min({all - own, waited, kMost}) : 0,
                 before = cost_.load(std::memory_order_relaxed), cost = before + kWeight * (late - before);
    cost_.store(cost, std::memory_order_relaxed), until_.store(now + kPatience * cost, std::memory_order_relaxed);
  }

 private:
  std::atomic<double> cost_{0}, until_{0};
};

}  // namespace convlab
