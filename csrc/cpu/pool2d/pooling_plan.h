// Poolings up to their kernels: a problem's tables, and how it is cut into pieces for threads and caches.
#pragma once
#include <algorithm>
#include <array>
#include <numeric>
#include <vector>

#include "cpu/parallel.h"
#include "cpu/pool2d/pooling.h"
#include "cpu/scratch.h"
#include "geometry/adaptive.h"
#include "geometry/pool2d.h"
#include "remembered.h"

namespace convlab::pooling {

constexpr int64_t kPieceBytes = 128 << 10;  // that a piece reads and writes, in an L2
constexpr int64_t kMostBytes = 512 << 10;  // where less would be read several times
constexpr int kHalos = 4;  // rows of a piece for one that its neighbour reads as well
constexpr int64_t kPieces = 16, kBlocks = 4;  // that there should be at least: strips of rows, blocks of channels
constexpr int kNarrowest = 4;  // outputs in a row that are worth a vector
constexpr int kShares = 256;  // of windows side by side that are divided at a time
constexpr int64_t kBytesPerWork = 8;  // of parallel.h's unit: vectors go through memory that fast

// backward: of a maximum; share: of an average, whose windows share dy out
enum class Pass { forward, backward, share };

inline Axis rows_of(const Pool2d& g) { return {g.H, g.P, g.R, g.stride_h, g.pad_h, g.dilation_h}; }
inline Axis columns_of(const Pool2d& g) { return {g.W, g.Q, g.S, g.stride_w, g.pad_w, g.dilation_w}; }

// Positions from the first that a window reaches, which may be padding, to the last of x or of a window
inline int reached(const Axis& a) {
  return std::max(a.pad + a.size, (a.outputs - 1) * a.stride + (a.kernel - 1) * a.dilation + 1);
}

// One dimension of a pass
class AxisTable {
 public:
  // tap r is number r `scale`
  AxisTable(Pass pass, const Axis& a, int scale) {
    if (pass == Pass::forward) {
      reads_.resize(a.outputs);
      for (int p = 0; p < a.outputs; p++) {
        const int start = p * a.stride - a.pad, tap = start < 0 ? (-start + a.dilation - 1) / a.dilation : 0;
        const int end = start < a.size ? std::min(a.kernel, (a.size - 1 - start) / a.dilation + 1) : 0;
        reads_[p] = {start + tap * a.dilation, std::max(0, end - tap), tap * scale, 1};
      }
      axis_ = {nullptr, a.outputs, a.size, a.dilation, scale, 1, a.stride};
    } else {  // the windows over each position, ascending
      reads_.resize(a.size, {0, 0, 0, 1});
      for (int p = 0; p < a.outputs; p++)
        for (int r = 0; r < a.kernel; r++) {
          const int h = p * a.stride - a.pad + r * a.dilation;
          if (h < 0 || h >= a.size) continue;
          if (reads_[h].count++ == 0) reads_[h].first = p, reads_[h].tap = r * scale;
        }
      const int common = std::gcd(a.stride, a.dilation);
      axis_ = {nullptr, a.size, a.outputs, a.dilation / common, -a.stride / common * scale, a.stride, 1};
    }
    find_alike();
  }
  // Adaptive windows of `outputs` over `size` positions; tap r is number r `scale`, in forward
  AxisTable(Pass pass, int size, int outputs, int scale) {
    const bool forward = pass == Pass::forward;
    const int targets = forward ? outputs : size, sources = forward ? size : outputs;
    for (int t = 0; t < targets; t++) {
      const Range r = forward ? adaptive_window(t, size, outputs) : adaptive_windows_over(t, size, outputs);
      reads_.push_back({r.begin, r.end - r.begin, 0, 1});
    }
    axis_ = {nullptr, targets, sources, 1, scale, 1, sources / targets};
    find_alike();
  }
  const PoolAxis& axis() const { return axis_; }

  // Sources that `count` targets in a row read, at most, where they begin with a multiple of count
  int spanned(int count) const {
    int most = 1;
    for (int t = 0; t < axis_.targets; t += count) {
      const Reads& last = reads_[std::min(t + count, axis_.targets) - 1];
      most = std::max(most, last.first + last.count - reads_[t].first);
    }
    return most;
  }

 private:
  void find_alike() {
    for (int t = axis_.targets - 1 - axis_.period; t >= 0; t--) {
      const Reads &next = reads_[t + axis_.period], &mine = reads_[t];
      if (next.count == mine.count && next.tap == mine.tap && next.first == mine.first + axis_.advance)
        reads_[t].alike = next.alike + 1;
    }
    axis_.reads = reads_.data();
  }

  std::vector<Reads> reads_;
  PoolAxis axis_;
};

inline int64_t parts(int64_t count, int64_t each) { return (count + each - 1) / each; }

// Halves `each` until there are so many pieces, but not to less than `least`
inline int split(int64_t pieces, int64_t pieces_of_all, int64_t count, int64_t each, int64_t least) {
  while (pieces_of_all * parts(count, each) < pieces && each >= 2 * least) each = parts(each, 2 * least) * least;
  return int(each);
}

inline int64_t bytes_of(const Pool2d& g, DType dtype) {
  return (int64_t(g.H) * g.W + int64_t(g.P) * g.Q) * g.planes * bytes_of(dtype);
}

// Rows of NCHW whose columns are taken for channels, and whose rows for columns: of windows one column wide, or of few taps
// and two or four columns side by side, where a row of outputs fills a vector. A maximum's gradient takes the latter only
// where the windows' rows lie side by side, too; an average's does not take them: it is repeated (average.kernel.cpp).
inline bool rows_as_channels(Pass pass, const Pool2d& g, int64_t channels, int64_t lanes) {
  const bool apart = g.R == g.stride_h && g.dilation_h == 1 && g.pad_h == 0 && int64_t(g.R) * g.P <= g.H;
  const bool some = (g.S == 2 || g.S == 4) && (pass == Pass::forward || (pass == Pass::backward && apart));
  return channels < lanes && channels * g.Q >= lanes &&
         (g.S == 1 || (some && channels == 1 && offsets_fit_a_byte(g))) && g.S == g.stride_w && g.dilation_w == 1 &&
         g.pad_w == 0 && int64_t(g.S) * g.Q <= g.W;
}

// One pass over tensors of `channels` side by side: C, or 1
class Plan {
 public:
  Plan(Pass pass, const Pool2d& problem, int64_t channels, DType dtype)
      : turned_(rows_as_channels(pass, problem, channels, instruction_set().lanes(dtype))),
        rows_(pass, turned_ ? Axis{1, 1, 1, 1, 0, 1} : pooling::rows_of(problem), problem.S),
        columns_(pass, turned_ ? pooling::rows_of(problem) : pooling::columns_of(problem), turned_ ? problem.S : 1),
        dtype_(dtype),
        bytes_(bytes_of(problem, dtype)) {
    const bool forward = pass == Pass::forward;
    const int64_t lanes = instruction_set().lanes(dtype);
    g_.rows = rows_.axis(), g_.columns = columns_.axis();
    g_.planes = problem.planes, g_.channels = g_.source_pixel = g_.target_pixel = channels;
    if (turned_) {
      g_.source_pixel *= forward ? problem.W : problem.Q, g_.target_pixel *= forward ? problem.Q : problem.W;
      g_.channels *= problem.Q;
    }
    g_.in_place = g_.channels >= lanes, g_.wide = turned_ ? problem.S : 1;
    g_.byte_offsets = offsets_fit_a_byte(problem);
    g_.side_by_side = pass == Pass::share && !g_.in_place && problem.R == problem.stride_h &&
                      problem.S == problem.stride_w && reached(pooling::rows_of(problem)) == problem.H &&
                      reached(pooling::columns_of(problem)) == problem.W;
    if (g_.side_by_side) g_.planes /= channels;  // of all channels together
    g_.whole = forward && channels == 1 && !turned_ && problem.P == 1 && problem.Q == 1 && problem.R == problem.H &&
               problem.S == problem.W && problem.pad_h == 0 && problem.pad_w == 0 && problem.dilation_h == 1 &&
               problem.dilation_w == 1;
    g_.narrow = forward && channels == 1 && !turned_ && problem.Q >= kNarrowest && problem.R == 2 && problem.S == 2 &&
                problem.stride_h == 2 && problem.stride_w == 2 && problem.pad_h == 0 && problem.pad_w == 0 &&
                problem.dilation_h == 1 && problem.dilation_w == 1 && problem.P == problem.H / 2 &&
                problem.Q == problem.W / 2;

    // rows of the source that `count` of the target read, at most
    const Axis a = turned_ ? Axis{1, 1, 1, 1, 0, 1} : pooling::rows_of(problem);
    const int extent = (a.kernel - 1) * a.dilation / (forward ? 1 : a.stride) + 2;
    cut(pass, problem.planes / channels, extent, [&](int count) {
      return int(std::min<int64_t>(g_.rows.sources, int64_t(count - 1) * g_.rows.advance / g_.rows.period + extent));
    });
  }

  // The same of an adaptive pooling, whose taps are numbered only in forward
  Plan(Pass pass, const Adaptive& a, int64_t channels, DType dtype)
      : turned_(false),
        rows_(pass, a.H, a.P, pass == Pass::forward ? adaptive_widest(a.W, a.Q) : 0),
        columns_(pass, a.W, a.Q, 1),
        dtype_(dtype),
        bytes_((int64_t(a.H) * a.W + int64_t(a.P) * a.Q) * a.planes * bytes_of(dtype)) {
    g_.rows = rows_.axis(), g_.columns = columns_.axis();
    g_.planes = a.planes, g_.channels = g_.source_pixel = g_.target_pixel = channels;
    g_.in_place = channels >= instruction_set().lanes(dtype);
    g_.wide_windows =
        pass == Pass::forward && channels == 1 && !g_.in_place && 2 * (a.W / a.Q) >= instruction_set().lanes(dtype);
    g_.columns_first = pass == Pass::share && channels == 1 && !g_.in_place;
    g_.byte_offsets = int64_t(adaptive_widest(a.H, a.P)) * adaptive_widest(a.W, a.Q) <= 256;
    cut(pass, a.planes / channels, rows_.spanned(1), [&](int count) { return rows_.spanned(count); });
  }

  Plan(Plan&&) = default;  // and no copies: g_ points into the tables

  const Pooling& pooling() const { return g_; }
  bool turned() const { return turned_; }  // rows are columns of the pooling

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
  // How much each piece has; sources(count): rows of the source that `count` of the target read, at most, `extent` if one
  template <class F> void cut(Pass pass, int64_t images, int extent, const F& sources) {
    const int64_t lanes = instruction_set().lanes(dtype_);
    const int64_t position = (g_.in_place ? g_.channels : lanes) * sum_bytes(dtype_);
    const auto fit = [&](int64_t bytes) {
      int count = g_.rows.targets;
      while (count > 1 &&
             position * (int64_t(sources(count)) * g_.columns.sources + int64_t(count) * g_.columns.targets) > bytes)
        count = (count + 1) / 2;
      return count;
    };
    g_.rows_each = std::max(fit(kPieceBytes), std::min(fit(kMostBytes), kHalos * extent));
    g_.channels_each = int(g_.channels);
    if (g_.in_place)
      g_.channels_each =
          split(kBlocks, images * parts(g_.rows.targets, g_.rows_each), g_.channels, g_.channels, 8 * lanes);
    else g_.rows_each = split(kPieces, parts(g_.planes, lanes), g_.rows.targets, g_.rows_each, kHalos * extent);
    g_.sources_each = sources(g_.rows_each);
    g_.planes_each = int(lanes);
    if (g_.side_by_side) {  // rows of whole windows
      g_.planes_each =
          int(std::clamp<int64_t>(kPieceBytes * g_.planes / bytes_, 1, std::max<int64_t>(1, g_.planes / kPieces)));
      g_.rows_each =
          split(kPieces, parts(g_.planes, g_.planes_each), g_.rows.targets, g_.rows.targets, kHalos * g_.rows.period);
      g_.sources_each = std::max(1, kShares / (g_.columns.sources * int(g_.channels)));
    } else if (g_.narrow) g_.rows_each = g_.rows.targets, g_.sources_each = 1;
    else if (pass != Pass::share && g_.in_place) g_.sources_each = 0;
    else if (pass == Pass::forward)
      g_.sources_each = int(std::clamp<int64_t>(kMostBytes / (g_.columns.sources * position), 1, g_.sources_each));
    pieces_ = parts(g_.rows.targets, g_.rows_each) *
              (g_.in_place ? images * (g_.channels / g_.channels_each) : parts(g_.planes, g_.planes_each));
  }

  bool turned_;
  AxisTable rows_, columns_;
  DType dtype_;
  int64_t bytes_, pieces_;
  Pooling g_{};
};

// What it is, in numbers: planes, H, W, P, Q, and more
inline std::array<int64_t, 5> numbers(const Adaptive& a) { return {a.planes, a.H, a.W, a.P, a.Q}; }
inline std::array<int64_t, 13> numbers(const Pool2d& g) {
  return {g.planes, g.H, g.W, g.P, g.Q, g.R, g.S, g.stride_h, g.stride_w, g.pad_h, g.pad_w, g.dilation_h, g.dilation_w};
}

// make()'s result, which depends on these alone, but what has very long tables, which is made anew
template <size_t count, class F>
auto planned(Pass pass, const std::array<int64_t, count>& of, int64_t channels, DType dtype, const F& make) {
  struct Asked {
    std::array<int64_t, count> of;
    int64_t channels;
    int32_t pass, dtype;
  };
  if (of[1] + of[2] + of[3] + of[4] > kLongestRemembered)
    return std::make_shared<const std::invoke_result_t<F>>(make());
  return remembered<128>(Asked{of, channels, int(pass), int(dtype)}, make);
}
template <class Window> std::shared_ptr<const Plan> planned(Pass pass, const Window& g, int64_t channels, DType dtype) {
  return planned(pass, numbers(g), channels, dtype, [&] { return Plan(pass, g, channels, dtype); });
}

}  // namespace convlab::pooling
