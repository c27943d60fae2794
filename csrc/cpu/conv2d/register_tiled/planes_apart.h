// Where a block's pixels lie, and planes that lie apart (planes.h): a source's are taken apart on the way into a panel; and
// where vectors of a target's go. A vector of a block of pixels may have those of two rows.
#pragma once
#include "cpu/conv2d/ahead.h"
#include "cpu/conv2d/register_tiled/planes.h"
#include "cpu/simd/transpose.h"

namespace convlab::CONVLAB_ISA::register_tiled {

using namespace convlab::register_tiled;

// The runs that `pixels` are, from `pixel` on: of rows, where these lie apart, else of images; returns their end
inline Run* find_runs(const PlanesProduct& p, int64_t pixel, int pixels, Run* run) {
  const Apart& apart = p.source;
  const int64_t most = apart.apart() ? p.Q : p.pixels,
                step = apart.apart() ? apart.rows * apart.row : p.groups * p.planes_of_source(),
                to_step = apart.apart() ? p.Q : p.groups * p.planes_of_target();
  int64_t i = pixel / most, first = pixel % most;
  for (int lane = 0; lane < pixels; lane += run++->count, first = 0, i++) {
    const int64_t left = most - first;
    *run = {lane, left < pixels - lane ? int(left) : pixels - lane, i * step + first * apart.columns,
            i * to_step + first};
  }
  return run;
}

// `ahead` is to ask for what these runs reach.
template <class A>
void look_ahead(const PlanesProduct& p, const A* planes, const Run* run, const Run* end, int64_t tiles, Ahead& ahead) {
  const Apart& apart = p.source;
  Ahead::Stretch stretches[Ahead::kMostStretches];
  int count = 0;
  const auto add = [&](int64_t at, int64_t elements) {
    stretches[count++] = {at * int64_t(sizeof(A)), elements * int64_t(sizeof(A))};
  };
  if (apart.apart()) {  // whole rows
    const int64_t first = run->at / apart.row, last = end[-1].at / apart.row;
    add(first * apart.row, (last - first + apart.R) * apart.row);
  } else {
    for (; run != end && count < Ahead::kMostStretches; run++) add(run->at, run->count);
  }
  ahead.share(planes, stretches, count, tiles, p.depth / apart.taps(), apart.plane * int64_t(sizeof(A)));
}

// The last vector of a block's rows that no pixel fills: what is multiplied there is not written
template <class A> void clear_last(int lanes, int depth, A* panel, int width) {
  constexpr int L = kLanes<A>;
  for (int d = 0; d < depth && lanes % L; d++) store<A>(panel + int64_t(d) * width + lanes / L * L, Vec<A>{});
}

// `pixels` of `depth` planes that lie together -> [depth, width]; S = 2: each of them twice. Writes up to a vector past the
// panel's end.
template <int S, class A>
void copy_planes(const A* planes, int64_t plane, int depth, const Run* runs, const Run* end, A* panel, int width) {
  constexpr int L = kLanes<A>;
  for (int d = 0; d < depth; d++, planes += plane, panel += width)
    for (const Run* run = runs; run != end; run++) {
      const A* const from = planes + run->at;
      A* to = panel + run->lane;
      for (int i = 0; i < run->count; i += L, to += S * L) {
        const Vec<A> some = load_some<A>(from + i, run->count - i);
        store<A>(to, S == 2 ? zip<A, 0>(some, some) : some);
        if (S == 2 && run->count - i > L / 2) store<A>(to + L, zip<A, 1>(some, some));
      }
    }
}

// `count` pixels of `channels` planes that lie apart -> [channels, R, S], `width` elements apart
template <int S, bool whole, class A>
void take_run(const A* source, const Apart& apart, int count, int channels, A* panel, int width) {
  constexpr int L = kLanes<A>;
  if (whole) count = L;
  const int reach = apart.columns * (count - 1) + S;
  for (int c = 0; c < channels; c++, source += apart.plane)
    for (int r = 0; r < apart.R; r++, panel += S * width) {
      const A* const from = source + r * apart.row;
      if (apart.columns == 1) {
        store_some<A>(panel, load_some<A>(from, count), count);
        continue;
      }
      const Vec<A> first = load_every_second<A, 0>(from, reach), second = load_every_second<A, 1>(from, reach);
      store_some<A>(panel, first, count);
      if (S == 2) store_some<A>(panel + width, second, count);
    }
}

// copy_planes of planes that lie apart, in `depth` taps of channels
template <class A>
void take_apart(const A* source, const Apart& apart, const Run* run, const Run* end, int depth, A* panel, int width) {
  constexpr int L = kLanes<A>;
  const int channels = depth / apart.taps();
  for (; run != end; run++)
    for (int i = 0, count; i < run->count; i += count) {
      count = L < run->count - i ? L : run->count - i;
      const auto take = apart.S == 1 ? &take_run<1, false, A>
                        : count == L ? &take_run<2, true, A>
                                     : &take_run<2, false, A>;
      take(source + run->at + int64_t(i) * apart.columns, apart, count, channels, panel + run->lane + i, width);
    }
}

// Where `lanes` lanes go, from lane `lane` of a plane on: S a pixel
inline void land(const PlanesProduct& p, int64_t lane, int lanes, int L, Landing* landing) {
  const int64_t width = int64_t(p.Q) * p.target.S;
  for (int64_t end = lane + lanes; lane < end; lane += L, landing++) {
    const int64_t row = lane / width, left = (row + 1) * width - lane;
    *landing = {lane + row * p.target.gap(), int(left < L && p.target.gap() ? left : L)};
  }
}

}  // namespace convlab::CONVLAB_ISA::register_tiled
