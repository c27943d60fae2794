// Warp collectives: shuffles, votes, __syncwarp. What a lane receives whose source takes no part is undefined in CUDA; see
// shuffle().
#pragma once
#include <cstring>

#include "simulator/runtime.h"

namespace convlab::sim {

void synchronise(void** lanes, uint32_t mask);

struct Shuffle {
  uint64_t in, out;
  int source;
};
void shuffle(void** lanes, uint32_t mask);

struct Vote {
  bool predicate;
  uint32_t ballot;
};
void vote(void** lanes, uint32_t mask);

template <class T> T shuffle_from(const char* what, unsigned mask, T value, int source, Site site) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  Shuffle lane{0, 0, source};
  std::memcpy(&lane.in, &value, sizeof value);
  warp_collective(what, shuffle, mask, &lane, site);
  std::memcpy(&value, &lane.out, sizeof value);
  return value;
}

// The first lane of the segment of `width` lanes that the calling lane is in.
inline int segment_of(int lane, int width) { return lane & ~(width - 1); }

}  // namespace convlab::sim

inline void __syncwarp(unsigned mask = 0xffffffffu, CONVLAB_SITE) {
  convlab::sim::warp_collective("__syncwarp", convlab::sim::synchronise, mask, nullptr, site);
}

template <class T> T __shfl_sync(unsigned mask, T value, int source, int width = 32, CONVLAB_SITE) {
  const int first = convlab::sim::segment_of(int(convlab::sim::lane_id()), width);
  return convlab::sim::shuffle_from("__shfl_sync", mask, value, first + (source & (width - 1)), site);
}

template <class T> T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, CONVLAB_SITE) {
  const int lane = int(convlab::sim::lane_id()), source = lane ^ bits;
  const bool outside = source >= convlab::sim::segment_of(lane, width) + width;
  return convlab::sim::shuffle_from("__shfl_xor_sync", mask, value, outside ? lane : source, site);
}

template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, CONVLAB_SITE) {
  const int lane = int(convlab::sim::lane_id()), source = lane + int(delta);
  const bool outside = source >= convlab::sim::segment_of(lane, width) + width;
  return convlab::sim::shuffle_from("__shfl_down_sync", mask, value, outside ? lane : source, site);
}

template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, CONVLAB_SITE) {
  const int lane = int(convlab::sim::lane_id()), source = lane - int(delta);
  const bool outside = source < convlab::sim::segment_of(lane, width);
  return convlab::sim::shuffle_from("__shfl_up_sync", mask, value, outside ? lane : source, site);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, CONVLAB_SITE) {
  convlab::sim::Vote lane{predicate != 0, 0};
  convlab::sim::warp_collective("__ballot_sync", convlab::sim::vote, mask, &lane, site);
  return lane.ballot;
}

inline int __any_sync(unsigned mask, int predicate, CONVLAB_SITE) { return __ballot_sync(mask, predicate, site) != 0; }
inline int __all_sync(unsigned mask, int predicate, CONVLAB_SITE) { return __ballot_sync(mask, !predicate, site) == 0; }
