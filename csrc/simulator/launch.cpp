// One launch: its limits, its OS threads, its errors.
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <numeric>
#include <random>
#include <thread>

#include "simulator/check.h"
#include "simulator/faults.h"
#include "simulator/fork.h"
#include "simulator/interrupt.h"
#include "simulator/kernel_info.h"
#include "simulator/runner.h"
#include "simulator/traffic.h"
#include "simulator/watchdog.h"

namespace convlab::sim {
namespace {

constexpr unsigned kMaxBlockZ = 64, kMaxGridYZ = 65535;
constexpr uint64_t kMaxGridX = 0x7fffffff;
// Starting an OS thread takes as long as several small blocks.
constexpr uint64_t kBlocksWorthAThread = 16;
// Of a kernel of which only a sample of the blocks runs.
constexpr uint64_t kLeastSample = 2;

std::string dimensions(dim3 d) {
  return std::to_string(d.x) + " x " + std::to_string(d.y) + " x " + std::to_string(d.z);
}

void check_limits(const Launch& l) {
  const auto refuse = [&](const std::string& what) {
    throw Error("convlab simulator: launch: " + what + "\n  kernel " + kernel_info(l.kernel).title() + "\n  grid " +
                dimensions(l.grid) + ", block " + dimensions(l.block) + ", " + std::to_string(l.dynamic_shared_bytes) +
                " bytes of dynamic shared memory");
  };
  const uint64_t threads = uint64_t(l.block.x) * l.block.y * l.block.z;
  if (threads == 0) refuse("the block has no threads");
  if (threads > kMaxThreads || l.block.x > kMaxThreads || l.block.y > kMaxThreads)
    refuse(std::to_string(threads) + " threads a block, at most 1024 are allowed");
  if (l.block.z > kMaxBlockZ) refuse("block.z is " + std::to_string(l.block.z) + ", at most 64 is allowed");
  const unsigned bounds = kernel_info(l.kernel).launch_bounds;
  if (bounds && threads > bounds)
    refuse(std::to_string(threads) + " threads a block, but the kernel's __launch_bounds__ says at most " +
           std::to_string(bounds));
  if (!l.grid.x || !l.grid.y || !l.grid.z) refuse("the grid has no blocks; do not launch for an empty problem");
  if (l.grid.x > kMaxGridX) refuse("grid.x is " + std::to_string(l.grid.x) + ", at most 2^31 - 1 is allowed");
  if (l.grid.y > kMaxGridYZ) refuse("grid.y is " + std::to_string(l.grid.y) + ", at most 65535 is allowed");
  if (l.grid.z > kMaxGridYZ) refuse("grid.z is " + std::to_string(l.grid.z) + ", at most 65535 is allowed");
  if (l.dynamic_shared_bytes > kSharedLimit) refuse("more dynamic shared memory than the 227 KiB a block can have");
}

// A block of each of `count` runs of neighbouring ones, drawn at random.
std::vector<uint64_t> sample_of(uint64_t blocks, uint64_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<uint64_t> sample(count);
  const uint64_t each = blocks / count, longer = blocks % count;  // so many runs have one block more
  for (uint64_t i = 0; i < count; i++) sample[i] = i * each + std::min(i, longer) + random() % (each + (i < longer));
  return sample;
}

// Runners are kept: their stacks and arenas are warm, and in the checking build their epochs go on.
class RunnerPool {
 public:
  std::unique_ptr<Runner> take() {
    std::lock_guard lock(mutex_);
    if (idle_.empty()) return std::make_unique<Runner>();
    auto runner = std::move(idle_.back());
    idle_.pop_back();
    return runner;
  }
  void give_back(std::unique_ptr<Runner> runner) {
    std::lock_guard lock(mutex_);
    idle_.push_back(std::move(runner));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Runner>> idle_;
};

RunnerPool& pool() {
  static RunnerPool p;
  return p;
}

unsigned cores() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? std::max(1, CPU_COUNT(&set)) : 1;
}

class Execution {  // of one launch
 public:
  Execution(const Launch& launch, Session& session)
      : launch_(launch), session_(session), blocks_(uint64_t(launch.grid.x) * launch.grid.y * launch.grid.z) {
    if (session.one_block_in > 1) {
      draw_sample();
    } else if (session.order == Order::random && blocks_ <= UINT32_MAX) {
      permutation_.resize(blocks_);
      std::iota(permutation_.begin(), permutation_.end(), 0u);
      std::shuffle(permutation_.begin(), permutation_.end(), std::mt19937_64(session.seed));
    }
  }

  void run() {
    uint64_t threads = 1;
    if (!kChecking)
      threads = std::clamp<uint64_t>(runs() / kBlocksWorthAThread, 1, os_threads() ? os_threads() : cores());
    std::vector<std::thread> others;
    for (uint64_t i = 1; i < threads; i++) others.emplace_back([this] { work(); });
    work();
    for (std::thread& t : others) t.join();

    std::lock_guard lock(session_.mutex);
    if (!error_.empty()) throw Error(error_);
    const KernelInfo& kernel = kernel_info(launch_.kernel);
    session_.launches.push_back({kernel.name, kernel.source, launch_.grid, launch_.block, shared_bytes_});
    for (const auto& [line, sums] : traffic_) session_.traffic[line].add(sums);
  }

 private:
  uint64_t runs() const { return session_.one_block_in > 1 ? sample_.size() : blocks_; }

  // As many blocks as are missing to the share that is wanted of this kernel's, over all launches so far.
  void draw_sample() {
    const KernelInfo& kernel = kernel_info(launch_.kernel);
    std::lock_guard lock(session_.mutex);
    Session::Blocks& all = session_.blocks[{kernel.source, kernel.name}];
    all.launched += blocks_;
    const uint64_t share = (all.launched + session_.one_block_in - 1) / session_.one_block_in;
    const uint64_t wanted = std::max(share, std::min(kLeastSample, all.launched));
    const uint64_t count = wanted > all.ran ? std::min(wanted - all.ran, blocks_) : 0;
    if (count) sample_ = sample_of(blocks_, count, session_.seed + all.ran);
    all.ran += count;
  }

  void work() {
    std::unique_ptr<Runner> runner = pool().take();
    TrafficCounter counter;
    const AlternateStack signal_stack;
    try {
      if (kChecking) begin_checked_launch(*runner);
      runner->begin_launch(launch_, session_);
      runner->counter = kChecking && session_.count ? &counter : nullptr;
      running() = runner.get();
      const Watch watch(*runner, interrupt_);
      for (uint64_t ticket; !stop_ && (ticket = next_++) < runs();) {
        if (interrupt_.came())
          throw Error("convlab simulator: the launch was interrupted\n  kernel " + kernel_info(launch_.kernel).title());
        runner->run_block(!sample_.empty()                   ? sample_[ticket]
                          : !permutation_.empty()            ? permutation_[ticket]
                          : session_.order == Order::reverse ? blocks_ - 1 - ticket
                                                             : ticket);
        std::lock_guard lock(mutex_);
        shared_bytes_ = std::max(shared_bytes_, runner->shared.bytes_used());
      }
    } catch (const std::exception& e) {
      stop_ = true;
      std::lock_guard lock(mutex_);
      if (error_.empty()) error_ = e.what();
    }
    running() = nullptr;
    if (runner->counter)
      traffic_ = counter.take(kernel_info(launch_.kernel).name,
                              kernel_info(launch_.kernel).source);  // the checking build has one OS thread
    runner->counter = nullptr;
    pool().give_back(std::move(runner));
  }

  const Launch& launch_;
  Session& session_;
  const uint64_t blocks_;
  const Interrupt interrupt_ = Interrupt::here();
  std::vector<uint32_t> permutation_;
  std::vector<uint64_t> sample_;  // the blocks that run, where not all do
  std::atomic<uint64_t> next_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;  // of what follows
  std::string error_;
  size_t shared_bytes_ = 0;
  Traffic traffic_;
};

}  // namespace

void run(const Launch& launch) {
  if (running()) fail({"launch inside a kernel"});
  fail_if_the_host_touched_device_memory();
  const ForkWaits until_it_is_done;
  check_limits(launch);
  const std::shared_ptr<Session> session = current_session() ? current_session() : std::make_shared<Session>();
  if (session->only_plan) {
    const KernelInfo& kernel = kernel_info(launch.kernel);
    std::lock_guard lock(session->mutex);
    session->launches.push_back({kernel.name, kernel.source, launch.grid, launch.block, launch.dynamic_shared_bytes});
    return;
  }
  // the race check keeps its marks in one time line, so one launch is checked at a time, whichever thread it comes from
  static std::mutex checking;
  std::unique_lock<std::mutex> one_at_a_time;
  if (kChecking) one_at_a_time = std::unique_lock(checking);
  const FaultGuard faults;
  Execution(launch, *session).run();
}

}  // namespace convlab::sim
