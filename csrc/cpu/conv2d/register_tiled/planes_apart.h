// Planes that lie apart (planes.h): a source's are taken apart on the way into a panel; and where vectors of a target's go.
// A vector of a block of pixels may have those of two rows.
#pragma once
#include "cpu/conv2d/register_tiled/planes.h"
#include "cpu/simd/transpose.h"

namespace convlab::CONVLAB_ISA::register_tiled {

using namespace convlab::register_tiled;

// The runs that `lanes` pixels are, from `pixel` on; returns their end
inline const Run* find_runs(const PlanesProduct& p, int64_t pixel, int lanes, Run* run) {
  const Apart& apart = p.source;
  int64_t row = pixel / p.Q;
  int column = int(pixel % p.Q);
  for (int lane = 0, count; lane < lanes; lane += count, column = 0, row++, run++) {
    count = p.Q - column < lanes - lane ? p.Q - column : lanes - lane;
    *run = {lane, count, row * apart.rows * apart.row + column * apart.columns};
  }
  return run;
}

// The part of a source's plane that `count` pixels reach, from `pixel` on
struct Reached {
  int64_t at, count;
};
inline Reached reached(const PlanesProduct& p, int64_t pixel, int count) {
  const Apart& apart = p.source;
  if (!apart.apart()) return {pixel, count};
  const int64_t first = pixel / p.Q, last = (pixel + count - 1) / p.Q;
  return {first * apart.rows * apart.row, ((last - first) * apart.rows + apart.R) * apart.row};
}

// `count` pixels of `channels` planes that lie apart -> [channels, R, S, L]
template <int S, bool whole, class A>
void take_run(const A* source, const Apart& apart, int count, int channels, A* panel) {
  constexpr int L = kLanes<A>;
  if (whole) count = L;
  const int reach = apart.columns * (count - 1) + S;
  for (int c = 0; c < channels; c++, source += apart.plane)
    for (int r = 0; r < apart.R; r++, panel += S * L) {
      const A* const from = source + r * apart.row;
      if (apart.columns == 1) {
        store_some<A>(panel, load_some<A>(from, count), count);
        continue;
      }
      const Vec<A> first = load_every_second<A, 0>(from, reach), second = load_every_second<A, 1>(from, reach);
      store_some<A>(panel, first, count);
      if (S == 2) store_some<A>(panel + L, second, count);
    }
}

// copy_planes of planes that lie apart, in `depth` taps of channels
template <class A>
void take_apart(const A* source, const Apart& apart, const Run* run, const Run* end, int lanes, int depth, A* panel) {
  constexpr int L = kLanes<A>;
  const int channels = depth / apart.taps();
  for (int d = 0; d < depth && lanes % L; d++) store<A>(panel + (int64_t(lanes / L) * depth + d) * L, Vec<A>{});
  for (; run != end; run++)
    for (int i = 0, count; i < run->count; i += count) {
      const int lane = run->lane + i, room = L - lane % L;
      count = room < run->count - i ? room : run->count - i;
      const auto take = apart.S == 1 ? &take_run<1, false, A>
                        : count == L ? &take_run<2, true, A>
                                     : &take_run<2, false, A>;
      take(source + run->at + int64_t(i) * apart.columns, apart, count, channels,
           panel + int64_t(lane / L) * depth * L + lane % L);
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
