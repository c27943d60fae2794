#include "simulator/runner.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <numeric>

#include "simulator/traffic.h"
#include "simulator/warp.h"

namespace convlab::sim {
namespace {

// Room for a thread's local variables. Pages that are never touched cost nothing.
constexpr size_t kStackBytes = 128 * 1024;
// Stacks start at different places of a page, or the same variable of all threads would compete for the same cache
// lines.
constexpr size_t kStaggerStep = 192, kStaggerRange = 6144;

size_t guard_bytes() {
  static const size_t page = size_t(sysconf(_SC_PAGESIZE));
  return page;
}

void thread_main() {
  Runner& r = *running();
  r.in_runtime = false;
  r.launch().call(r.launch().arguments);
  r.thread_returns();
}

uint64_t mix(uint64_t x) {  // splitmix64: neighbouring seeds give unrelated sequences
  x += 0x9e3779b97f4a7c15;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
  x = (x ^ x >> 27) * 0x94d049bb133111eb;
  return x ^ x >> 31;
}

}  // namespace

Runner::~Runner() {
  if (stacks_) munmap(stacks_, capacity_ * stack_bytes_);
}

char* Runner::stack_bottom(unsigned thread) const { return stacks_ + thread * stack_bytes_ + guard_bytes(); }
char* Runner::stack_top(unsigned thread) const {
  return stacks_ + (thread + 1) * stack_bytes_ - thread * kStaggerStep % kStaggerRange;
}

void Runner::make_stacks(unsigned threads) {
  if (threads <= capacity_) return;
  if (stacks_) munmap(stacks_, capacity_ * stack_bytes_);
  stacks_ = nullptr, capacity_ = 0;
  stack_bytes_ = kStackBytes + guard_bytes();
  void* p =
      mmap(nullptr, threads * stack_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED)
    throw Error("convlab simulator: no memory for the stacks of " + std::to_string(threads) + " threads");
  stacks_ = static_cast<char*>(p), capacity_ = threads;
  for (unsigned i = 0; i < threads; i++) mprotect(stacks_ + i * stack_bytes_, guard_bytes(), PROT_NONE);
  threads_.resize(threads);
  warps_.resize((threads + kWarp - 1) / kWarp);
}

void Runner::begin_launch(const Launch& launch, const Session& session) {
  count_ = launch.block.x * launch.block.y * launch.block.z;
  make_stacks(count_);
  launch_ = &launch;
  order = session.order, seed_ = session.seed, marks = !session.without_data();
  epochs.launch_began = epochs.now + 1;
  last_buffer = nullptr;
  builtins.block_size = launch.block, builtins.grid_size = launch.grid;
}

void Runner::run_block(uint64_t block) {
  const dim3 grid = launch_->grid, size = launch_->block;
  builtins.block = {unsigned(block % grid.x), unsigned(block / grid.x % grid.y), unsigned(block / grid.x / grid.y)};
  random_state_ = mix(mix(seed_) + block) | 1;  // of the block, not of the OS thread that happens to run it
  shared.begin_block(launch_->dynamic_shared_bytes);
  live_ = count_, waiting_ = 0, failed_ = false;
  read_too_early.reset();
  epochs.block_began = ++epochs.now;

  unsigned i = 0;
  for (unsigned z = 0; z < size.z; z++)
    for (unsigned y = 0; y < size.y; y++)
      for (unsigned x = 0; x < size.x; x++, i++) {
        Thread& t = threads_[i];
        t.id = {x, y, z}, t.index = uint16_t(i), t.state = State::ready;
        t.copies.clear(), t.products.clear();
        start_at(t.context, stack_bottom(i), stack_top(i), thread_main);
      }
  for (unsigned first = 0; first < count_; first += kWarp) {
    Warp& w = warp_of(first);
    w.gathering_count = 0, w.returned = 0, w.sync_epoch++;
    w.lanes = count_ - first >= kWarp ? ~0u : (1u << (count_ - first)) - 1;
  }

  fill_queue();
  resume(main_, next());  // comes back when the block has finished or failed
  current = nullptr, in_runtime = false;
  if (read_too_early && !failed_) {
    failed_ = true, report_ = read_too_early->report;
    builtins.thread = read_too_early->thread;
  }
  if (failed_) {
    const Report report = std::move(report_);
    std::string message = "convlab simulator: " + report.what;
    if (report.where.known()) message += "\n  at " + text(report.where.place());
    if (!report.other.empty()) message += "\n  " + report.other;
    if (report.other_where.known()) message += " at " + text(report.other_where.place());
    throw Error(message + position());
  }
  if (counter) counter->end_block();
}

// ---- the order of things ----

uint64_t Runner::random() {  // xorshift64
  random_state_ ^= random_state_ << 13;
  random_state_ ^= random_state_ >> 7;
  random_state_ ^= random_state_ << 17;
  return random_state_;
}

void Runner::fill_queue() {
  queue_head_ = queue_length_ = 0;
  for (unsigned k = 0; k < count_; k++) {
    const unsigned i = order == Order::reverse ? count_ - 1 - k : k;
    if (threads_[i].state == State::ready) queue_[queue_length_++] = uint16_t(i);
  }
}

// The thread to run next, or null when the block has finished.
Thread* Runner::next() {
  if (queue_length_ == 0) {
    if (live_ == 0) return nullptr;
    release_barrier();
  }
  unsigned i;
  if (order == Order::random) {
    const unsigned k = unsigned(random() % queue_length_);
    i = queue_[k];
    queue_[k] = queue_[--queue_length_];
  } else {
    i = queue_[queue_head_];
    queue_head_ = (queue_head_ + 1) % kMaxThreads;
    queue_length_--;
  }
  return &threads_[i];
}

void Runner::release_barrier() {
  if (read_too_early) fail({});
  const Thread* first = nullptr;  // that waits
  for (unsigned i = 0; i < count_ && !first; i++)
    if (threads_[i].state != State::returned) first = &threads_[i];
  if (waiting_ != live_) fail({"deadlock: no thread of the block can go on", first->site, who_waits_where()});
  if (live_ != count_)
    fail({"barrier divergence: " + std::to_string(live_) + " of " + std::to_string(count_) +
              " threads wait in __syncthreads, the others have returned",
          first->site, who_waits_where()});
  for (unsigned i = 0; i < count_; i++) {
    const Site a = threads_[i].site, b = first->site;
    if (a.line() != b.line() || a.column() != b.column() || std::string_view(a.file_name()) != b.file_name())
      fail(
          {"barrier divergence: threads of the block wait in different __syncthreads", first->site, who_waits_where()});
    threads_[i].state = State::ready;
  }
  waiting_ = 0;
  epochs.now++;
  if (counter) counter->end_interval();
  fill_queue();
}

void Runner::resume(Context& from, Thread* to) {
  if (to) {
    current = to;
    own_stack_ = stack_bottom(to->index), own_stack_end_ = stacks_ + (to->index + 1) * stack_bytes_;
    builtins.thread = to->id;
  }
  __atomic_store_n(&switches_, switches_ + 1, __ATOMIC_RELAXED);
  switch_context(from, to ? to->context : main_);
}

void Runner::hand_over() {
  Thread* self = current;
  Thread* to = next();
  if (to != self) resume(self->context, to);
}

// ---- what threads do ----

void Runner::barrier(Site site) {
  current->state = State::at_barrier;
  current->site = site;
  waiting_++;
  hand_over();
}

void Runner::collective(const char* what, WarpOperation operation, uint32_t mask, void* arguments, Site site) {
  Thread& self = *current;
  Warp& warp = warp_of(self.index);
  const unsigned lane = self.index % kWarp;
  const std::string name = what;
  if (!(mask >> lane & 1)) fail({name + ": the calling lane " + std::to_string(lane) + " is not in the mask", site});

  Gathering* g = nullptr;
  for (unsigned i = 0; i < warp.gathering_count; i++) {
    Gathering& other = warp.gatherings[i];
    if (other.mask == mask) g = &other;
    else if (other.mask & mask)
      fail({name + ": lanes of one warp wait for each other with different masks", site,
            std::string("others are in ") + other.what, other.site});
  }
  if (!g) {
    if (warp.gathering_count == kMaxGatherings)
      fail({"lanes of one warp wait in more than " + std::to_string(kMaxGatherings) + " collectives", site});
    g = &warp.gatherings[warp.gathering_count++];
    *g = {mask, 0, operation, what, site, {}};
  }
  if (g->operation != operation || g->site.line() != site.line() || g->site.column() != site.column())
    fail({"warp divergence: lanes of one warp meet in different collectives, here in " + name, site,
          std::string("others are in ") + g->what, g->site});
  g->arguments[lane] = arguments;
  g->arrived |= 1u << lane;
  if (complete(warp, *g)) return finish(warp, *g, self.index - lane);
  self.state = State::in_collective;
  self.waits_in = what;
  self.site = site;
  hand_over();
}

bool Runner::complete(const Warp& warp, const Gathering& gathering) const {
  return gathering.arrived == (gathering.mask & warp.lanes & ~warp.returned);
}

// Runs the operation and lets those who wait for it go on.
void Runner::finish(Warp& warp, Gathering& gathering, unsigned first_thread) {
  gathering.operation(gathering.arguments, gathering.arrived);
  for (unsigned k = 0; k < kWarp; k++) {
    const unsigned lane = order == Order::reverse ? kWarp - 1 - k : k;
    Thread& t = threads_[first_thread + lane];
    if (!(gathering.arrived >> lane & 1) || t.state != State::in_collective) continue;  // the last to arrive runs
    t.state = State::ready;
    queue_[order == Order::random ? queue_length_ : (queue_head_ + queue_length_) % kMaxThreads] = t.index;
    queue_length_++;
  }
  if (gathering.operation == synchronise && gathering.arrived == (warp.lanes & ~warp.returned)) warp.sync_epoch++;
  gathering = warp.gatherings[--warp.gathering_count];
}

void Runner::thread_returns() {
  in_runtime = true;
  if (!current->copies.empty())
    fail({"a thread returns with cp.async copies that it never waited for", current->copies.first_site()});
  if (!current->products.empty())
    fail({"a thread returns with wgmma products that it never waited for", current->products.first_site()});
  current->state = State::returned;
  live_--;
  Warp& warp = warp_of(current->index);
  const unsigned lane = current->index % kWarp;
  warp.returned |= 1u << lane;
  warp.returned_in[lane] = warp.sync_epoch;
  for (unsigned i = 0; i < warp.gathering_count;) {  // others may have waited for this lane only
    Gathering& g = warp.gatherings[i];
    called_from = g.site;
    if (complete(warp, g)) finish(warp, g, current->index - lane);
    else i++;
  }
  Context gone;
  resume(gone, next());
  __builtin_unreachable();
}

void Runner::abandon(Report report) {
  report_ = std::move(report);
  failed_ = true;
  Context gone;
  resume(gone, nullptr);
  __builtin_unreachable();
}

// ---- words for reports ----

std::string Runner::who_waits_where() const {  // a line for each run of threads that do the same
  constexpr size_t kEnough = 1500;             // characters
  std::string out;
  const auto same = [](const Thread& a, const Thread& b) {
    return a.state == b.state &&
           (a.state == State::returned || (a.site.line() == b.site.line() && a.site.column() == b.site.column()));
  };
  for (unsigned i = 0, j; i < count_ && out.size() < kEnough; i = j) {
    for (j = i + 1; j < count_ && same(threads_[i], threads_[j]);) j++;
    const Thread& t = threads_[i];
    out += (out.empty() ? "thread " : "\n  thread ") + text(t.id) +
           (j - i > 1 ? " and the next " + std::to_string(j - i - 1) : "");
    out += t.state == State::returned ? ": returned"
           : t.state == State::ready
               ? ": can run"
               : std::string(": in ") + (t.state == State::at_barrier ? "__syncthreads" : t.waits_in) + " at " +
                     text(t.site);
  }
  return out;
}

}  // namespace convlab::sim
