// Poolings up to their kernels: a problem's tables, and how it is cut into pieces for threads and caches.
#pragma once
#include <algorithm>
#include <numeric>
#include <vector>

#include "cpu/parallel.h"
#include "cpu/pool2d/pooling.h"
#include "cpu/scratch.h"
#include "geometry/pool2d.h"

namespace convlab::pooling {

constexpr int64_t kPieceBytes = 128 << 10;  // that a piece reads and writes, in an L2
constexpr int64_t kMostBytes = 512 << 10;  // where less would be read several times
constexpr int64_t kHalos = 4;  // rows of a piece for one that its neighbour reads as well
constexpr int64_t kPieces = 16;  // that there should be at least
constexpr int64_t kBytesPerWork = 8;  // of parallel.h's unit: vectors go through memory that fast

enum class Pass { forward, backward };

inline Axis rows_of(const Pool2d& g) { return {g.H, g.P, g.R, g.stride_h, g.pad_h, g.dilation_h}; }
inline Axis columns_of(const Pool2d& g) { return {g.W, g.Q, g.S, g.stride_w, g.pad_w, g.dilation_w}; }

// One dimension of a pass
class AxisTable {
 public:
  AxisTable(Pass pass, const Axis& a) {
    if (pass == Pass::forward) {
      reads_.resize(a.outputs);
      for (int p = 0; p < a.outputs; p++) {
        const int start = p * a.stride - a.pad, tap = start < 0 ? (-start + a.dilation - 1) / a.dilation : 0;
        const int end = start < a.size ? std::min(a.kernel, (a.size - 1 - start) / a.dilation + 1) : 0;
        reads_[p] = {start + tap * a.dilation, std::max(0, end - tap), tap, 1};
      }
      axis_ = {nullptr, a.outputs, a.size, a.dilation, 1, 1, a.stride};
    } else {  // the windows over each position, ascending
      reads_.resize(a.size, {0, 0, 0, 1});
      for (int p = 0; p < a.outputs; p++)
        for (int r = 0; r < a.kernel; r++) {
          const int h = p * a.stride - a.pad + r * a.dilation;
          if (h < 0 || h >= a.size) continue;
          if (reads_[h].count++ == 0) reads_[h].first = p, reads_[h].tap = r;
        }
      const int common = std::gcd(a.stride, a.dilation);
      axis_ = {nullptr, a.size, a.outputs, a.dilation / common, -a.stride / common, a.stride, 1};
    }
    for (int t = axis_.targets - 1 - axis_.period; t >= 0; t--) {
      const Reads &next = reads_[t + axis_.period], &mine = reads_[t];
      if (next.count == mine.count && next.tap == mine.tap && next.first == mine.first + axis_.advance)
        reads_[t].alike = next.alike + 1;
    }
    axis_.reads = reads_.data();
  }
  const PoolAxis& axis() const { return axis_; }

 private:
  std::vector<Reads> reads_;
  PoolAxis axis_;
};

inline int64_t parts(int64_t count, int64_t each) { return (count + each - 1) / each; }

// Halves `each` until there are enough pieces, but not to less than `least`
inline int split(int64_t pieces_of_all, int64_t count, int64_t each, int64_t least) {
  while (pieces_of_all * parts(count, each) < kPieces && each >= 2 * least) each = parts(each, 2 * least) * least;
  return int(each);
}

inline int64_t bytes_of(const Pool2d& g, DType dtype) {
  return (int64_t(g.H) * g.W + int64_t(g.P) * g.Q) * g.planes * bytes_of(dtype);
}

// One pass over tensors of `channels` side by side: C, or 1
class Plan {
 public:
  Plan(Pass pass, const Pool2d& problem, int64_t channels, DType dtype)
      : rows_(pass, pooling::rows_of(problem)),
        columns_(pass, pooling::columns_of(problem)),
        dtype_(dtype),
        bytes_(bytes_of(problem, dtype)) {
    const int lanes = instruction_set().lanes(dtype);
    const Axis a = pooling::rows_of(problem);
    g_ = {rows_.axis(), columns_.axis(), problem.S, problem.planes, channels, channels >= lanes,
          offsets_fit_a_byte(problem)};
    // rows of the source that `count` of the target read, at most
    const int64_t extent = (a.kernel - 1) * a.dilation / (pass == Pass::forward ? 1 : a.stride) + 2;
    const auto sources = [&](int64_t count) {
      return std::min<int64_t>(g_.rows.sources, (count - 1) * g_.rows.advance / g_.rows.period + extent);
    };
    const int64_t lanes_bytes = lanes * sum_bytes(dtype),
                  row = g_.in_place ? channels * sum_bytes(dtype) : lanes_bytes;
    const auto fit = [&](int64_t bytes) {
      int64_t count = g_.rows.targets;
      while (count > 1 && (sources(count) * g_.columns.sources + count * g_.columns.targets) * row > bytes) count = count / 2;
      return count;
    };
    g_.channels_each = int(channels);
    g_.rows_each = int(std::max(fit(kPieceBytes), std::min(fit(kMostBytes), kHalos * extent)));
    g_.rows_each = std::min(g_.rows_each, g_.rows.targets);
    if (g_.in_place) {
      const int64_t strips = parts(g_.rows.targets, g_.rows_each) * problem.planes / channels;
      g_.channels_each = split(strips, channels, channels, 4 * lanes);
    } else {
      g_.rows_each = split(parts(problem.planes, lanes), g_.rows.targets, g_.rows_each, std::max<int64_t>(1, kHalos * (extent - 2)));
    }
    g_.sources_each = int(sources(g_.rows_each));
    if (pass == Pass::forward)
      g_.sources_each = int(g_.in_place ? 0 : std::clamp<int64_t>(kMostBytes / (g_.columns.sources * row), 1, g_.sources_each));
    pieces_ = parts(g_.rows.targets, g_.rows_each) *
              (g_.in_place ? problem.planes / channels * (channels / g_.channels_each) : parts(problem.planes, lanes));
  }

  // Calls f(g, begin, end, scratch) for all pieces, from several threads
  template <class F> void run(const F& f) const {
    const int64_t scratch = measured(dtype_, [&](Measure& memory, auto sum) {
      pool_memory<decltype(sum)>(memory, g_, instruction_set().lanes(dtype_));
    });
    parallel_over(pieces_, bytes_ / pieces_ / kBytesPerWork, [&](int64_t begin, int64_t end) {
      const CpuScratch own(CpuScratch::own, scratch);
      f(g_, begin, end, own.get());
    });
  }

 private:
  AxisTable rows_, columns_;
  DType dtype_;
  int64_t bytes_, pieces_;
  Pooling g_{};
};

}  // namespace convlab::pooling
