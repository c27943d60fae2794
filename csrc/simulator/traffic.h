// What a kernel's accesses ask of the memory system, per line of its source.
//
// The n-th access of the lanes of a warp by one instruction, counted from the last barrier, is taken to be one request
// of the warp. That is what the hardware does while the lanes of a warp run through the same iterations; where lanes
// skip some (a predicated border) it is an estimate.
#pragma once
#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "simulator/runtime.h"

namespace convlab::sim {

struct TrafficKey {
  std::string kernel, kernel_source, file;
  unsigned line;
  std::string memory;  // the buffer's or the array's name
  bool shared;
  Access access;
  bool operator<(const TrafficKey& o) const {
    return std::tie(kernel_source, kernel, file, line, shared, access, memory) <
           std::tie(o.kernel_source, o.kernel, o.file, o.line, o.shared, o.access, o.memory);
  }
};

struct TrafficSums {
  uint64_t requests = 0;  // of warps
  uint64_t bytes = 0;  // that the lanes asked for
  uint64_t cost = 0;  // 32-byte sectors (device memory) or wavefronts (shared memory)
  uint64_t ideal = 0;  // the least that the same bytes can cost
  uint64_t missed = 0;  // of sectors that were read: those that an L1 cache the block has to itself does not hold yet
  // How many bytes neighbouring lanes are apart, in most requests, and by how many more than in the others.
  uint64_t apart = 0, votes = 0;
  void add(const TrafficSums& o) {
    requests += o.requests, bytes += o.bytes, cost += o.cost, ideal += o.ideal, missed += o.missed;
    if (o.apart == apart) votes += o.votes;
    else if (o.votes > votes) apart = o.apart, votes = o.votes - votes;
    else votes -= o.votes;
  }
  TrafficSums times(double factor) const {
    const auto scaled = [factor](uint64_t n) { return uint64_t(double(n) * factor + 0.5); };
    return {scaled(requests), scaled(bytes), scaled(cost), scaled(ideal), scaled(missed), apart, votes};
  }
};

using Traffic = std::map<TrafficKey, TrafficSums>;

// The sectors that one block has read lately: an L1 cache of 128 KB, a sector a line and each in one position.
class BlockCache {
 public:
  bool misses(uintptr_t sector) {
    uintptr_t& held = held_[(sector * 0x9e3779b97f4a7c15ull) >> (64 - kBits)];
    return held != sector && (held = sector, empty_ = false, true);
  }
  void clear() {
    if (!empty_) std::fill(held_.begin(), held_.end(), 0), empty_ = true;
  }

 private:
  static constexpr unsigned kBits = 12;  // sectors of 32 bytes
  std::vector<uintptr_t> held_ = std::vector<uintptr_t>(size_t(1) << kBits);
  bool empty_ = true;
};

class TrafficCounter {
 public:
  struct Memory {
    const char* name;
    bool shared;
  };
  // `place`: of the instruction, as in Mark
  void note(Memory memory, unsigned thread, const char* p, size_t bytes, Access access, uint32_t place);
  void end_interval();  // at a barrier
  void end_block();
  Traffic take(const std::string& kernel, const std::string& kernel_source);  // what was counted since the last call

 private:
  static constexpr unsigned kWarps = 32, kLanes = 32;
  struct Request {
    uintptr_t address[kLanes];
    uint32_t lanes = 0;
    uint32_t bytes = 0;
  };
  struct Stream {  // of requests by one instruction to one piece of memory
    std::string memory;
    bool shared;
    Access access;
    std::vector<uint32_t> seen = std::vector<uint32_t>(kWarps * kLanes);  // accesses of each thread in this interval
    std::vector<Request> requests[kWarps];
    TrafficSums sums;
  };
  using Key = std::tuple<uint32_t, const char*, Access>;  // place, the memory's name, kind
  struct Recent {
    Key key;
    Stream* stream = nullptr;
  };
  static constexpr unsigned kRecent = 64;  // a loop has a few accesses, over and over
  Stream& stream_of(const Key& key, bool shared);
  TrafficSums sums_of(const Stream& stream, const Request& q);
  std::map<Key, Stream> streams_;
  Recent recent_[kRecent];
  BlockCache cache_;
};

// Of the lanes' addresses in one request (each of `bytes` bytes).
unsigned ideal_sectors_of(const uintptr_t* address, uint32_t lanes, unsigned bytes);
struct Wavefronts {
  unsigned taken = 0, ideal = 0;  // ideal: the least that the same bytes can take
};
Wavefronts wavefronts_of(const uintptr_t* address, uint32_t lanes, unsigned bytes);

}  // namespace convlab::sim
