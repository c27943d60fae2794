// Who touched a piece of memory last, and when: what the race check keeps.
//
// An epoch is the interval between two barriers of one block. Epochs only grow, from block to block and from launch to
// launch, so that a mark tells by itself whether it is from this interval, an earlier one, or another block.
#pragma once
#include <cstddef>
#include <cstdint>

namespace convlab::sim {

struct Epochs {
  uint32_t now = 1, block_began = 1, launch_began = 1;
};

struct Mark {
  uint32_t epoch = 0;  // 0: never
  uint32_t other_block = 0;  // the epoch of an access by an earlier block, when a later block's has replaced it here
  uint32_t warp_epoch = 0;  // Warp::sync_epoch; where `several`, the place of an access by another than `thread`
  uint32_t place = 0;  // of the instruction, see check.cpp
  uint16_t thread = 0;
  bool several = false;  // several threads, unordered among themselves
  bool atomic = false;
};

struct Granule {  // of 1, 2 or 4 bytes
  Mark write, read;
};

// The granules of a piece of memory. Zero pages until touched, so a large output that is written once costs what it
// uses.
class Shadow {
 public:
  Shadow() = default;
  ~Shadow();
  Shadow(const Shadow&) = delete;
  Shadow(Shadow&& other) noexcept : granules_(other.granules_), count_(other.count_) { other.granules_ = nullptr; }
  Granule* of(size_t count);  // makes them at the first call
  void clear();

 private:
  Granule* granules_ = nullptr;
  size_t count_ = 0;
};

}  // namespace convlab::sim
