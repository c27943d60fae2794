// The simulator library's controls and reports, for whoever loads it: plain C, so that the library stays free of Python
// and of C++ types in its interface. It exports one function, convlab_simulator, that returns this table.
#pragma once
#include <cstddef>
#include <cstdint>

namespace convlab::sim {

struct LaunchRow {
  const char* kernel;
  const char* source;
  unsigned grid[3], block[3];
  uint64_t shared_bytes;
};

struct TrafficRow {
  const char *kernel, *kernel_source, *file;
  unsigned line;
  const char* memory;  // the argument's or the shared array's name
  int shared, access;  // access: 0 read, 1 write, 2 atomic
  uint64_t requests, bytes, cost, ideal, missed;
};

struct Api {
  // order: 0 forward, 1 reverse, 2 random
  // only_plan: launches are recorded and not run, and outputs stay as they are
  // one_block_in: more than 1 runs one of so many blocks; inputs are not read, and outputs stay as they are
  // multiprocessors, capability (ten times the compute capability): of the GPU that launches are planned for
  uint64_t (*open_session)(int order, uint64_t seed, int count, int only_plan, uint64_t one_block_in,
                           int multiprocessors, int capability);
  void (*close_session)(uint64_t session);
  // Makes it the session of the calling OS thread's launches; 0 for none. Returns the one before. interruptible: SIGINT
  // ends those launches.
  uint64_t (*enter_session)(uint64_t session, int interruptible);
  int (*interrupted)();  // whether SIGINT came to the calling OS thread since, and ended a launch or will
  // Call `each` with every row. Pointers are valid during the call.
  void (*launches)(uint64_t session, void (*each)(void* context, const LaunchRow* row), void* context);
  void (*traffic)(uint64_t session, void (*each)(void* context, const TrafficRow* row), void* context);
  void (*set_os_threads)(unsigned threads);  // of one launch in the plain build; 0: one a core
};

}  // namespace convlab::sim

extern "C" __attribute__((visibility("default"))) const convlab::sim::Api* convlab_simulator();
