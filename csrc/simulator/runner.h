// Runs the blocks of a launch, one after the other, on the OS thread it belongs to. The threads of a block are fibers
// that hand over to each other directly, and only where the language makes them meet: at barriers and warp collectives.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "simulator/async_copies.h"
#include "simulator/fiber.h"
#include "simulator/race_marks.h"
#include "simulator/report.h"
#include "simulator/session.h"
#include "simulator/shared_memory.h"
#include "simulator/warpgroup_products.h"

namespace convlab::sim {

constexpr unsigned kMaxThreads = 1024;  // of a block, on every architecture
constexpr unsigned kWarp = 32;
constexpr unsigned kMaxGatherings = 8;  // groups of lanes of one warp that wait in different collectives at once

enum class State : uint8_t { ready, at_barrier, in_collective, returned };

struct Thread {  // one CUDA thread
  Context context;
  uint3 id;
  uint16_t index;
  State state;
  const char* waits_in;  // the collective's name
  Site site;  // where it waits
  AsyncCopies copies;
  WarpgroupProducts products;
};

// Lanes of a warp that meet in one collective. They wait for the lanes of the mask that have not returned: CUDA asks
// of "all non-exited threads named in mask" that they execute the same intrinsic with the same mask, and it does not
// matter whether a lane returns before or while the others wait. A value read from a lane that has returned is
// undefined, see shuffle(); tensor core operations need all lanes.
struct Gathering {
  uint32_t mask, arrived;
  WarpOperation operation;
  const char* what;
  Site site;
  void* arguments[kWarp];
};

struct Warp {
  Gathering gatherings[kMaxGatherings];
  unsigned gathering_count;
  uint32_t lanes, returned;
  uint32_t sync_epoch;  // __syncwarps so far of all lanes that had not returned: what orders memory between them
  uint32_t returned_in[kWarp];  // of a lane that has returned, the sync_epoch when it did: later ones do not order it

  // A lane's accesses in earlier warp epochs come before what the warp does now.
  uint32_t ordered_before(unsigned lane) const { return returned >> lane & 1 ? returned_in[lane] : sync_epoch; }
};

// A read of shared memory that nobody had written. Who writes it before the next barrier has raced with it.
struct EarlyRead {
  Report report;
  uint3 thread;
};

struct Buffer;
class Watch;

class Runner {
 public:
  Runner() = default;
  ~Runner();
  Runner(const Runner&) = delete;

  void begin_launch(const Launch& launch, const Session& session);  // throws Error
  void run_block(uint64_t block);  // by its linear index; throws Error

  // Called on a fiber.
  void barrier(Site site);
  void collective(const char* what, WarpOperation operation, uint32_t mask, void* arguments, Site site);
  [[noreturn]] void thread_returns();
  [[noreturn]] void abandon(Report report);

  const Launch& launch() const { return *launch_; }
  unsigned thread_count() const { return count_; }
  bool on_own_stack(const char* p) const { return p >= own_stack_ && p < own_stack_end_; }
  bool on_any_stack(const char* p) const { return p >= stacks_ && p < stacks_ + capacity_ * stack_bytes_; }
  bool below_own_stack(const char* p) const {
    return p < own_stack_ && p >= own_stack_end_ - stack_bytes_;
  }  // in its guard page
  char* stack_bottom(unsigned thread) const;
  char* stack_top(unsigned thread) const;
  bool random_bit() { return random() & 1; }
  uint3 thread_id(unsigned index) const { return threads_[index].id; }
  Warp& warp_of(unsigned thread) { return warps_[thread / kWarp]; }
  std::string position() const;  // thread, block, kernel, order: the last lines of a report
  uint64_t progress() const { return __atomic_load_n(&switches_, __ATOMIC_RELAXED); }

  Thread* current = nullptr;  // null while no kernel code runs
  bool in_runtime = false;  // a runtime function runs: instrumented library code in it is not the kernel's
  Where called_from;  // where the kernel called the runtime function that runs
  Order order{};
  bool marks = true;  // accesses, for the race check: not of a sample of blocks, which is only counted
  SharedMemory shared;
  Epochs epochs;  // for the race check
  Buffer* last_buffer = nullptr;  // the device buffer last accessed; most accesses are to the same one
  TrafficCounter* counter = nullptr;  // null unless the session counts
  Watch* watch = nullptr;  // while the watchdog looks after this runner

 private:
  void make_stacks(unsigned threads);
  void fill_queue();
  void release_barrier();
  bool complete(const Warp& warp, const Gathering& gathering) const;
  void finish(Warp& warp, Gathering& gathering, unsigned first_thread);
  Thread* next();
  void hand_over();
  void resume(Context& from, Thread* to);
  std::string who_waits_where() const;
  uint64_t random();

  const Launch* launch_ = nullptr;
  uint64_t seed_ = 0, random_state_ = 0;
  unsigned count_ = 0, live_ = 0,
           waiting_ = 0;  // threads of the block, that have not returned, that wait at the barrier
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  Context main_{};
  uint16_t queue_[kMaxThreads];  // of threads that can run
  unsigned queue_head_ = 0, queue_length_ = 0;
  uint64_t switches_ = 0;
  bool failed_ = false;
  Report report_;
  char* stacks_ = nullptr;
  char *own_stack_ = nullptr, *own_stack_end_ = nullptr;
  size_t stack_bytes_ = 0;
  unsigned capacity_ = 0;  // stacks

 public:
  std::optional<EarlyRead> read_too_early;  // in this interval between barriers, the first; rarely touched, so last
};

// The runner whose block the calling OS thread runs, or null.
inline constinit thread_local Runner* running_here = nullptr;
inline Runner*& running() { return running_here; }

// Marks the runtime busy while a runtime function that the kernel called at `where` runs, see Runner::in_runtime.
class InRuntime {
 public:
  InRuntime(Runner& r, const Where& where) : runner_(r) { r.in_runtime = true, r.called_from = where; }
  ~InRuntime() { runner_.in_runtime = false; }
  InRuntime(const InRuntime&) = delete;

 private:
  Runner& runner_;
};

}  // namespace convlab::sim
