// What csrc/cpu/parallel.h asks of torch, for a program without it: one part after another, the last one first.
#pragma once
#include <algorithm>
#include <cstdint>

namespace torch::stable {

inline int64_t largest_part = INT64_MAX;

inline uint32_t get_num_threads() { return 4; }

template <class F> void parallel_for(int64_t begin, int64_t end, int64_t grain, const F& f) {
  grain = std::min(grain, largest_part);
  for (int64_t part = (end - begin + grain - 1) / grain; part-- > 0;)
    f(begin + part * grain, std::min(begin + (part + 1) * grain, end));
}

}  // namespace torch::stable
