// What a simulate() block asks for, and what it collects.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "simulator/traffic.h"
#include "simulator/types.h"

namespace convlab::sim {

// In which order the blocks of a grid run, and the threads of a block between two barriers.
enum class Order { forward, reverse, random };
const char* name_of(Order order);

struct LaunchRecord {
  std::string kernel;
  std::string source;  // file:line of the kernel
  dim3 grid, block;
  size_t shared_bytes;  // static and dynamic, of the block that used most; of a launch that did not run, dynamic
};

struct Session {
  uint64_t id = 0;  // 0: known to nobody outside
  Order order = Order::random;
  uint64_t seed = 0;
  bool count = false;
  bool only_plan = false;  // launches are recorded and not run
  // More than 1: of so many blocks of a kernel, over all launches, one runs, and its traffic counts for all.
  uint64_t one_block_in = 1;
  int multiprocessors = 132, capability = 90;  // of the GPU that launches are planned for: an H200

  // Whether results are not wanted: device buffers then have addresses and no contents, and may be larger than memory.
  bool without_data() const { return only_plan || one_block_in > 1; }

  std::mutex mutex;  // several threads may launch in one session
  std::vector<LaunchRecord> launches;
  Traffic traffic;  // of the blocks that ran
  struct Blocks {
    uint64_t launched = 0, ran = 0;
  };
  std::map<std::pair<std::string, std::string>, Blocks> blocks;  // by the kernel's source and name, where not all run

  Traffic traffic_of_all() const;  // of all blocks, those that ran standing for the others
};

// The session that launches of the calling OS thread belong to. Without one: random order, seed 0, nothing is recorded.
std::shared_ptr<Session>& current_session();

// OS threads that the blocks of one launch may use in the plain build; 0 for one a core.
unsigned& os_threads();

}  // namespace convlab::sim
