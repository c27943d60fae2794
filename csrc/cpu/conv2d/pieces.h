// An algorithm's pieces of work, spread over threads.
#pragma once
#include "cpu/conv2d/cpu_rung.h"
#include "cpu/conv2d/filters.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"

namespace convlab {

constexpr int64_t kAtOnce = 8;  // multiply-adds in the time of one of parallel.h's: vectors do so many

// Calls f(begin, end, scratch) over parts of the plan's pieces, which are `work` multiply-adds together.
template <class F> void over_pieces(const CpuPlan& plan, int64_t work, const F& f) {
  parallel_over(plan.pieces, work / kAtOnce / plan.pieces, [&](int64_t begin, int64_t end) {
    const CpuScratch own(CpuScratch::own, plan.scratch);
    f(begin, end, own.get());
  });
}

// Adds up wgrad's slices, sums [slices, vectors, elements of a vector] -> w
inline void add_up(const Filters& f, DType dtype, const char* sums, int slices, int64_t vectors, int64_t elements,
                   void* w) {
  parallel_over(vectors, elements * slices,
                [&, unpack = kernels::unpack_weights.of(dtype)](int64_t begin, int64_t end) {
                  unpack(f, sums + begin * elements * sum_bytes(dtype), slices, vectors * elements, w, begin, end);
                });
}

}  // namespace convlab
