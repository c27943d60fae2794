// Poolings up to their kernels: a problem's tables, and how it is cut into pieces for threads and caches.
#pragma once
#include <algorithm>
#include <vector>

#include "cpu/parallel.h"
#include "cpu/pool2d/pooling.h"
#include "cpu/scratch.h"
#include "geometry/pool2d.h"

namespace convlab::pooling {

constexpr int64_t kPieceBytes = 24 << 10;  // the lines of a piece, in an L1 of 32 KB
constexpr int64_t kRowBytes = 256 << 10;  // the lines of one row of outputs, in an L2: wider rows are cut
constexpr int64_t kHalos = 4;  // rows of a piece for one that its neighbour lays out as well
constexpr int64_t kBehind = 128;  // elements behind the last line that vectors may reach
constexpr int64_t kMostPhases = 256;  // more would not stay in an L2, however few outputs a piece has
constexpr int64_t kChannelBytes = 64 << 10;  // of a piece without lines
constexpr int64_t kBytesPerWork = 8;  // of parallel.h's unit: vectors go through memory that fast

enum class Pass { forward, backward };
enum class Way { lines, channels, plain };  // pooling.h

inline Axis rows_of(const Pool2d& g) { return {g.H, g.P, g.R, g.stride_h, g.pad_h, g.dilation_h}; }
inline Axis columns_of(const Pool2d& g) { return {g.W, g.Q, g.S, g.stride_w, g.pad_w, g.dilation_w}; }

// Phases and taps of one dimension
struct AxisTables {
  std::vector<int> phases, phase_of_tap;

  explicit AxisTables(const Axis& a) {
    for (int r = 0; r < a.kernel; r++) phase_of_tap.push_back(r * a.dilation % a.stride);
    phases = phase_of_tap;
    std::sort(phases.begin(), phases.end());
    phases.erase(std::unique(phases.begin(), phases.end()), phases.end());
    for (int& phase : phase_of_tap) phase = int(std::lower_bound(phases.begin(), phases.end(), phase) - phases.begin());
  }
  PoolAxis axis(const Axis& a) const {
    return {a, phases.data(), phase_of_tap.data(), int(phases.size()), (a.kernel - 1) * a.dilation / a.stride};
  }
};

// Phases of what the lines of a pass hold: of x, or of dx
inline int64_t phases(Pass pass, const Pool2d& g) {
  if (pass == Pass::backward) return int64_t(g.stride_h) * g.stride_w;
  return int64_t(AxisTables(rows_of(g)).phases.size()) * int64_t(AxisTables(columns_of(g)).phases.size());
}

inline bool side_by_side(const Pool2d& g) {
  return g.R == g.stride_h && g.S == g.stride_w && g.dilation_h == 1 && g.dilation_w == 1 && g.pad_w == 0;
}

// One pass, in lines or in channels, over planes of `inner` elements a position
class Plan {
 public:
  Plan(Pass pass, const Pool2d& problem, int64_t inner, DType dtype, Way way)
      : rows_(rows_of(problem)),
        columns_(columns_of(problem)),
        pass_(pass),
        dtype_(dtype),
        bytes_((int64_t(problem.H) * problem.W + int64_t(problem.P) * problem.Q) * problem.planes * bytes_of(dtype)) {
    g_.planes = problem.planes / inner, g_.inner = inner;
    g_.rows = rows_.axis(rows_of(problem)), g_.columns = columns_.axis(columns_of(problem));
    g_.row_part = lines_of(g_.rows), g_.column_part = lines_of(g_.columns);
    g_.side_by_side = side_by_side(problem), g_.byte_offsets = offsets_fit_a_byte(problem);
    if (way == Way::channels) cut_rows();
    else cut_lines();
  }

  // Calls f(g, begin, end, scratch) for all pieces, from several threads. lay_out(memory, sum, g, lanes): what a thread
  // takes of its memory, for sums of that type.
  template <class LayOut, class F> void run(const LayOut& lay_out, const F& f) const {
    const int64_t pieces = parts(g_.planes, g_.planes_each) * parts(g_.row_part) * parts(g_.column_part);
    const int64_t scratch =
        measured(dtype_, [&](Measure& memory, auto sum) { lay_out(memory, sum, g_, instruction_set().lanes(dtype_)); });
    parallel_over(pieces, bytes_ / pieces / kBytesPerWork, [&](int64_t begin, int64_t end) {
      const CpuScratch own(CpuScratch::own, scratch);
      f(g_, begin, end, own.get());
    });
  }

 private:
  static int64_t parts(int64_t count, int64_t each) { return (count + each - 1) / each; }
  static int64_t parts(const PoolPart& p) { return parts(p.end - p.begin, p.each); }

  PoolPart lines_of(const PoolAxis& a) const {
    if (pass_ == Pass::forward) return {0, a.outputs, a.outputs};
    const int begin = a.pad / a.stride, end = (a.size - 1 + a.pad) / a.stride + 1;
    return {begin, end, end - begin};
  }

  // Whole rows of outputs, or of x in backward, of one image
  void cut_rows() {
    const bool forward = pass_ == Pass::forward;
    const int count = forward ? g_.rows.outputs : g_.rows.size;
    const int64_t row = int64_t(g_.columns.size) * g_.inner * sum_bytes(dtype_) * (forward ? g_.rows.stride : 1);
    g_.row_part = {0, count, int(std::clamp<int64_t>(kChannelBytes / row, 1, count))};
    g_.planes_each = 1;
  }

  // What a kernel lays out: forward the phases of x; backward dy and offsets
  int64_t buffers() const { return pass_ == Pass::forward ? int64_t(g_.rows.phase_count) * g_.columns.phase_count : 2; }

  void cut_lines() {
    const int64_t place = g_.inner * sum_bytes(dtype_) * buffers(), reach = g_.rows.reach;
    PoolPart &rows = g_.row_part, &columns = g_.column_part;
    columns.each = int(std::clamp<int64_t>(kRowBytes / (place * (1 + reach)) - g_.columns.reach, 1, columns.each));
    const int64_t line = place * (columns.each + g_.columns.reach);
    const int64_t fit = kPieceBytes / line - reach, halos = std::min(kHalos * reach, kRowBytes / line - reach);
    const int count = rows.each;
    rows.each = int(std::clamp<int64_t>(std::max(fit, halos), 1, count));
    g_.planes_each = rows.each == count && columns.each == columns.end - columns.begin
                         ? std::clamp<int64_t>(kPieceBytes / (line * (count + reach)), 1, g_.planes)
                         : 1;
    g_.line = (columns.each + g_.columns.reach) * g_.inner;
    g_.plane = (rows.each + reach) * g_.line;
    g_.phase = g_.planes_each * g_.plane + kBehind;
  }

  AxisTables rows_, columns_;
  Pass pass_;
  DType dtype_;
  int64_t bytes_;
  Pooling g_{};
};

}  // namespace convlab::pooling
