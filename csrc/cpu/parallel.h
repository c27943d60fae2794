// Spreading independent pieces of work over torch's threads, where that is worth it. Results must have the same bits for
// any number of them.
#pragma once
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <ctime>

#include "cpu/lateness.h"

namespace convlab {

// Work is counted in multiply-adds or bytes, one at a time. To wake a thread that sleeps and to wait for it takes some
// ten microseconds (two where it waits busily): less than twice that is no work for one.
constexpr double kSecondsPerWork = 3e-10;
constexpr int64_t kWorkPerThread = 65536;

inline Lateness lateness;  // of the process's threads

inline double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// That the calling thread has had a core
inline double own_seconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

// Calls f(begin, end) over parts of [0, pieces). f must not throw: what is thrown inside a thread loses its class.
template <class F> void parallel_over(int64_t pieces, int64_t work_per_piece, const F& f) {
  const int64_t work = std::max<int64_t>(1, work_per_piece), grain = std::max<int64_t>(1, kWorkPerThread / work);
  const int64_t threads = std::min<int64_t>(torch::stable::get_num_threads(), (pieces + grain - 1) / grain);
  if (threads <= 1) return torch::stable::parallel_for(0, pieces, grain, f);
  const double saved = kSecondsPerWork * double(pieces * work) * (1 - 1.0 / double(threads)), start = seconds_now();
  if (!lateness.worth(saved, start)) return f(0, pieces);
  double own = start;
  std::atomic<double> waited{0};  // for a core: the most of any part
  torch::stable::parallel_for(0, pieces, grain, [&](int64_t begin, int64_t end) {
    if (begin == 0) {  // the calling thread has the first part
      f(begin, end);
      own = seconds_now();
      return;
    }
    const double before = own_seconds();
    f(begin, end);
    const double mine = seconds_now() - start - (own_seconds() - before);
    for (double most = waited; mine > most && !waited.compare_exchange_weak(most, mine);) {
    }
  });
  const double end = seconds_now();
  lateness.note(own - start, end - start, waited, double(threads), end);
}

}  // namespace convlab
