// What compiled kernels call: the simulator's side of barriers, warp operations, shared memory and launches. Everything
// here is implemented in files that are never instrumented.
//
// A Site is where the kernel calls from. It is a default argument, so that it names the kernel's line, and its column
// tells two barriers on one line apart.
#pragma once
#include <cstddef>
#include <cstdint>
#include <source_location>
#include <stdexcept>

#include "simulator/types.h"

#define CONVLAB_SITE std::source_location site = std::source_location::current()

namespace convlab::sim {

using Site = std::source_location;

// What a launch throws when the kernel did something wrong.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// ---- the block ----

// A block never leaves its OS thread, so the built-in variables are thread_local; the scheduler rewrites threadIdx at
// every switch.
struct Builtins {
  uint3 thread, block;
  dim3 block_size, grid_size;
};
inline constinit thread_local Builtins builtins{};

void block_barrier(Site site);
[[noreturn]] void trap(Site site);

// ---- shared memory ----

// What an array holds. The checks tell accesses apart in units of `unit` bytes.
struct Element {
  unsigned bytes, unit;
};

// 4-byte units are fastest. Structs of arrays may hold 2-byte elements; up to 16 bytes are a scalar or a vector of one
// type.
template <class T>
constexpr Element kElement = {sizeof(T), sizeof(T) > 16   ? 2
                                         : alignof(T) < 4 ? unsigned(alignof(T))
                                                          : 4};

// Static arrays are looked up by `key`, the address of a static of the declaring function.
void* shared_array(const void* key, size_t bytes, Element element, const char* name, Site site);
void* dynamic_shared(Element element, Site site);

// ---- the warp ----

// Every lane in `mask` leaves a pointer to its arguments; the last to arrive runs `operation` for all of them.
using WarpOperation = void (*)(void** lanes, uint32_t mask);
void warp_collective(const char* what, WarpOperation operation, uint32_t mask, void* arguments, Site site);
unsigned lane_id();

// ---- memory ----

enum class Access : uint8_t { read, write, atomic };
void note_access(const void* address, size_t bytes, Access access, Site site);  // for the checking build; else nothing

void copy_to_symbol(void* symbol, const void* source, size_t bytes);  // by the host, for whom it is no access

float atomic_add(float* address, float value, Site site);
double atomic_add(double* address, double value, Site site);
int atomic_add(int* address, int value, Site site);
unsigned atomic_add(unsigned* address, unsigned value, Site site);
unsigned long long atomic_add(unsigned long long* address, unsigned long long value, Site site);
int atomic_max(int* address, int value, Site site);
unsigned atomic_cas(unsigned* address, unsigned expected, unsigned value, Site site);

// Copies of 4, 8 or 16 bytes to shared memory that land as late as the language allows: when they are waited for.
void async_copy(void* shared, const void* global, unsigned bytes, unsigned source_bytes, Site site);
void async_commit();
void async_wait(unsigned groups_that_may_be_pending);

// ---- products of a warpgroup, by which each thread computes its own sums ----

using MultiplyRow = float (*)(float sum, const void* a, const void* b);  // of 16 bytes of a row and of a column
uint32_t shared_address(const void* p, Site site);
struct WarpgroupProduct {
  float* sums;
  int N;
  bool adds;  // to the sums, else it is what they become
  const uint32_t* registers;  // of A; null: it is in shared memory
  uint64_t a, b;  // matrix descriptors
  MultiplyRow multiply;
};
void wgmma(const WarpgroupProduct& product, Site site);
void warpgroup_commit();
void warpgroup_wait(unsigned groups_that_may_be_pending, Site site);

// ---- launches ----

struct Launch {
  const void* kernel;
  dim3 grid, block;
  size_t dynamic_shared_bytes;
  void (*call)(void* arguments);  // runs the kernel's body in the calling fiber
  void* arguments;
  size_t argument_bytes;
};
void run(const Launch& launch);  // throws Error

int multiprocessors();  // of the GPU that the calling OS thread's launches are planned for
int capability();  // so too: ten times its compute capability

}  // namespace convlab::sim
