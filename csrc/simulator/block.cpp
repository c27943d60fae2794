// The functions of runtime.h that synchronize threads, and the atomics.
#include <cstring>

#include "simulator/check.h"
#include "simulator/runner.h"
#include "simulator/warp.h"

namespace convlab::sim {

void block_barrier(Site site) {
  Runner& r = *running();
  InRuntime guard(r, site);
  r.barrier(site);
}

void trap(Site site) { fail({"__trap()", site}); }

unsigned lane_id() { return running()->current->index % kWarp; }

void warp_collective(const char* what, WarpOperation operation, uint32_t mask, void* arguments, Site site) {
  Runner& r = *running();
  InRuntime guard(r, site);
  r.collective(what, operation, mask, arguments, site);
}

void synchronise(void**, uint32_t) {}

namespace {

// What a lane receives from one that takes no part: undefined in CUDA, and a kernel may read it if it does not use it.
// NaN, or a number that max or min shows where they would drop NaN.
uint64_t undefined_value(Order order) {
  constexpr uint64_t kHuge = 0x7b7b7b7b7b7b7b7b, kSign = 0x8080808080808080;
  return order == Order::random ? kPoison : order == Order::reverse ? kHuge : kHuge ^ kSign;
}

}  // namespace

void shuffle(void** lanes, uint32_t mask) {
  for (unsigned lane = 0; lane < kWarp; lane++) {
    if (!(mask >> lane & 1)) continue;
    auto& own = *static_cast<Shuffle*>(lanes[lane]);
    own.out = mask >> own.source & 1 ? static_cast<Shuffle*>(lanes[own.source])->in : undefined_value(running()->order);
  }
}

void vote(void** lanes, uint32_t mask) {
  uint32_t ballot = 0;
  for (unsigned lane = 0; lane < kWarp; lane++)
    if (mask >> lane & 1 && static_cast<Vote*>(lanes[lane])->predicate) ballot |= 1u << lane;
  for (unsigned lane = 0; lane < kWarp; lane++)
    if (mask >> lane & 1) static_cast<Vote*>(lanes[lane])->ballot = ballot;
}

namespace {

// Blocks may run on several OS threads, so the update is atomic there too. Bits has the size of T.
template <class Bits, class T, class F> T update(T* address, Site site, F f) {
  static_assert(sizeof(Bits) == sizeof(T));
  Runner& r = *running();
  InRuntime guard(r, site);
  if (reinterpret_cast<uintptr_t>(address) % sizeof(T))
    fail({"misaligned atomic operation: the address must be a multiple of " + std::to_string(sizeof(T)), site});
  check_access(r, address, sizeof(T), Access::atomic, site);
  Bits* bits = reinterpret_cast<Bits*>(address);
  Bits old_bits = __atomic_load_n(bits, __ATOMIC_RELAXED), new_bits;
  T old;
  do {
    std::memcpy(&old, &old_bits, sizeof old);
    const T value = f(old);
    std::memcpy(&new_bits, &value, sizeof value);
  } while (!__atomic_compare_exchange_n(bits, &old_bits, new_bits, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return old;
}

}  // namespace

float atomic_add(float* p, float v, Site site) {
  return update<uint32_t>(p, site, [=](float old) { return old + v; });
}
double atomic_add(double* p, double v, Site site) {
  return update<uint64_t>(p, site, [=](double old) { return old + v; });
}
int atomic_add(int* p, int v, Site site) {
  return update<uint32_t>(p, site, [=](int old) { return int(unsigned(old) + unsigned(v)); });
}
unsigned atomic_add(unsigned* p, unsigned v, Site site) {
  return update<uint32_t>(p, site, [=](unsigned old) { return old + v; });
}
unsigned long long atomic_add(unsigned long long* p, unsigned long long v, Site site) {
  return update<uint64_t>(p, site, [=](unsigned long long old) { return old + v; });
}
int atomic_max(int* p, int v, Site site) {
  return update<uint32_t>(p, site, [=](int old) { return old < v ? v : old; });
}
unsigned atomic_cas(unsigned* p, unsigned expected, unsigned v, Site site) {
  return update<uint32_t>(p, site, [=](unsigned old) { return old == expected ? v : old; });
}

}  // namespace convlab::sim
