// Spreading independent pieces of work over torch's threads.
#pragma once
#include <torch/csrc/stable/ops.h>

#include <algorithm>

namespace convlab {

// A thread is worth waking for about this many multiply-adds or bytes, one at a time: some 10 microseconds.
constexpr int64_t kWorkPerThread = 32768;

// Calls f(begin, end) over parts of [0, pieces). f must not throw: what is thrown inside a thread loses its class.
template <class F> void parallel_over(int64_t pieces, int64_t work_per_piece, const F& f) {
  const int64_t grain = std::max<int64_t>(1, kWorkPerThread / std::max<int64_t>(1, work_per_piece));
  torch::stable::parallel_for(0, pieces, grain, f);
}

}  // namespace convlab
