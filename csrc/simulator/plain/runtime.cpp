// What memory.h and cuda_runtime.h declare, and printf and assert in kernels. Never instrumented; only in the checking
// build.
#include "simulator/plain/runtime.h"

#include <cstdarg>
#include <cstring>
#include <map>
#include <vector>

#include "simulator/check.h"
#include "simulator/device_memory.h"
#include "simulator/kernel_info.h"
#include "simulator/plain/cuda_runtime.h"
#include "simulator/plain/mma.h"

namespace convlab::sim::plain {
namespace {

constexpr size_t kSharedBytesUnasked = 48 * 1024;
constexpr unsigned kMostPrinted = 10;

std::map<void*, DeviceCopy>& allocations() {
  static std::map<void*, DeviceCopy> all;
  return all;
}

std::string count(size_t bytes) { return std::to_string(bytes) + " byte" + (bytes == 1 ? "" : "s"); }

bool on_device(const void* p) { return in_device_memory(static_cast<const char*>(p)); }

bool managed(const void* p) {
  const Buffer* const b = buffer_at(static_cast<const char*>(p));
  return b && b->managed;
}

void need_host(const char* function, Site site) {
  if (running() && running()->current)
    fail({std::string(function) + " in a kernel: it is a function of the host", site});
}

// A range of device memory that a host function reads or writes.
Buffer* range(const char* function, const char* role, const void* p, size_t bytes, Site site) {
  const char* begin = static_cast<const char*>(p);
  Buffer* b = buffer_at(begin);
  if (!b || begin < b->begin || begin + bytes > b->begin + b->bytes)
    fail({std::string(function) + ": the " + role + " is out of bounds: " + count(bytes) + " at " + describe_address(p),
          site});
  return b;
}

void write(const char* function, void* to, size_t bytes, Site site) {
  Buffer* b = range(function, "destination", to, bytes, site);
  if (b->read_only) fail({std::string(function) + ": write to an input: " + describe_address(to), site});
  written_by_the_host(*b, size_t(static_cast<char*>(to) - b->begin), bytes);
}

const char* name_of(cudaMemcpyKind kind) {
  constexpr const char* kNames[] = {"cudaMemcpyHostToHost", "cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost",
                                    "cudaMemcpyDeviceToDevice", "cudaMemcpyDefault"};
  return kNames[kind];
}

cudaMemcpyKind kind_of(bool from_device, bool to_device) {
  return from_device ? to_device ? cudaMemcpyDeviceToDevice : cudaMemcpyDeviceToHost
         : to_device ? cudaMemcpyHostToDevice
                     : cudaMemcpyHostToHost;
}

std::string what_it_is(const void* p) {
  const Buffer* b = buffer_at(static_cast<const char*>(p));
  return !p ? "null" : !on_device(p) ? "host memory" : b ? "device memory, '" + b->name + "'" : "device memory";
}

// That both ends lie where `kind` says.
void check_direction(const char* function, bool to_device, const std::string& to, const void* from, cudaMemcpyKind kind,
                     Site site) {
  const cudaMemcpyKind right = kind_of(on_device(from), to_device);
  if (kind == right || (kind == cudaMemcpyDefault && from)) return;
  fail({std::string(function) + " in the wrong direction: from " + what_it_is(from) + " to " + to +
            ", but the call says " + name_of(kind) + "; it must say " + name_of(right),
        site});
}

}  // namespace

// ---- memory ----

namespace {

void* allocate(const std::string& function, size_t bytes, unsigned element_bytes, Site site) {
  need_host(function.c_str(), site);
  if (!bytes) return nullptr;
  const std::string name = function + " of line " + std::to_string(site.line());
  DeviceCopy copy = DeviceCopy::scratch(bytes, name.c_str(), element_bytes <= 8 ? element_bytes : 4);
  void* const p = copy.get();
  allocations().emplace(p, std::move(copy));
  return p;
}

}  // namespace

void* allocate(size_t bytes, unsigned element_bytes, Site site) {
  return allocate("cudaMalloc", bytes, element_bytes, site);
}

void* allocate_managed(size_t bytes, unsigned element_bytes, Site site) {
  void* const p = allocate("cudaMallocManaged", bytes, element_bytes, site);
  if (Buffer* b = buffer_at(static_cast<char*>(p)))
    b->managed = b->initialised = true;  // the host's writes leave no marks
  return p;
}

cudaError_t wait() {
  kernels_may_run = false;
  return cudaSuccess;
}

void release(void* p, Site site) {
  need_host("cudaFree", site);
  if (p && !allocations().erase(p))
    fail({"cudaFree of what cudaMalloc has not given, or of what is free already: " + what_it_is(p), site});
}

void copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, Site site) {
  constexpr const char* kName = "cudaMemcpy";
  need_host(kName, site);
  if (!managed(from) && !managed(to)) check_direction(kName, on_device(to), what_it_is(to), from, kind, site);
  if (on_device(from)) range(kName, "source", from, bytes, site);
  if (on_device(to)) write(kName, to, bytes, site);
  std::memmove(to, from, bytes);
}

void set(void* to, int value, size_t bytes, Site site) {
  need_host("cudaMemset", site);
  if (!on_device(to)) fail({"cudaMemset of " + what_it_is(to) + ": it sets device memory; memset is the host's", site});
  write("cudaMemset", to, bytes, site);
  std::memset(to, value, bytes);
}

namespace {

void check_symbol(const char* function, size_t symbol_bytes, size_t bytes, size_t offset, Site site) {
  if (offset + bytes > symbol_bytes)
    fail({std::string(function) + " out of bounds: " + count(bytes) +
              (offset ? " from byte " + std::to_string(offset) : "") + " are more than the symbol's " +
              std::to_string(symbol_bytes),
          site});
}

}  // namespace

void copy_to_symbol(void* symbol, size_t symbol_bytes, const void* from, size_t bytes, size_t offset,
                    cudaMemcpyKind kind, Site site) {
  constexpr const char* kName = "cudaMemcpyToSymbol";
  need_host(kName, site);
  check_direction(kName, true, "a symbol of the device", from, kind, site);
  check_symbol(kName, symbol_bytes, bytes, offset, site);
  if (on_device(from)) range(kName, "source", from, bytes, site);
  std::memcpy(static_cast<char*>(symbol) + offset, from, bytes);
}

void copy_from_symbol(void* to, const void* symbol, size_t symbol_bytes, size_t bytes, size_t offset,
                      cudaMemcpyKind kind, Site site) {
  constexpr const char* kName = "cudaMemcpyFromSymbol";
  need_host(kName, site);
  const cudaMemcpyKind right = on_device(to) ? cudaMemcpyDeviceToDevice : cudaMemcpyDeviceToHost;
  if (kind != right && kind != cudaMemcpyDefault)
    fail({std::string(kName) + " in the wrong direction: to " + what_it_is(to) + ", but the call says " +
              name_of(kind) + "; it must say " + name_of(right),
          site});
  check_symbol(kName, symbol_bytes, bytes, offset, site);
  if (on_device(to)) write(kName, to, bytes, site);
  std::memcpy(to, static_cast<const char*>(symbol) + offset, bytes);
}

// ---- launches ----

namespace {

std::map<const void*, size_t>& allowed() {  // bytes of dynamic shared memory that kernels may have beyond 48 KiB
  static std::map<const void*, size_t> all;
  return all;
}

}  // namespace

void allow_shared_bytes(const void* kernel, size_t bytes, Site site) {
  if (bytes > kSharedLimit)
    fail({"cudaFuncSetAttribute: " + count(bytes) + " are more than the 227 KiB of shared memory a block can have",
          site});
  allowed()[kernel] = bytes;
}

void launch(const Launch& launch, Site site, const char* name) {
  if (name) name_kernel(launch.kernel, name, site);
  if (launch.dynamic_shared_bytes > std::max(kSharedBytesUnasked, allowed()[launch.kernel]))
    fail({"launch: " + count(launch.dynamic_shared_bytes) +
              " of dynamic shared memory are more than the 48 KiB of every kernel: call cudaFuncSetAttribute(kernel, "
              "cudaFuncAttributeMaxDynamicSharedMemorySize, bytes) before, which gives up to 227 KiB",
          site});
  run(launch);
  kernels_may_run = true;
}

void* dynamic_shared(Element element, Site site) {
  Runner& r = *running();
  InRuntime guard(r, site);
  return r.shared.dynamic_array(element, element.bytes, site, true);
}

// ---- tensor cores ----

void meet(void**, uint32_t mask) {
  if (mask != ~0u) fail({"a tensor core operation needs all 32 lanes of the warp", running()->called_from});
}

void check_matrix(const char* function, const void* address, size_t row_bytes, Site site) {
  constexpr size_t kAlignment = 32, kRowAlignment = 16;
  Runner& r = *running();
  InRuntime guard(r, site);
  const char* p = static_cast<const char*>(address);
  const Buffer* b = buffer_at(p);  // which a GPU aligns better than the simulator does
  const size_t from = b ? size_t(p - b->begin) : reinterpret_cast<uintptr_t>(p);
  if (from % kAlignment)
    fail({std::string(function) + ": misaligned: the address must be a multiple of 32 bytes, and is " +
              std::to_string(from % kAlignment) + " more than one",
          site});
  if (row_bytes % kRowAlignment)
    fail(
        {std::string(function) + ": misaligned: ldm must be a multiple of 16 bytes, and is " + count(row_bytes), site});
}

void not_rounded(const char* operand, float value) {
  fail({std::string("wmma::mma_sync: an operand of ") + operand +
            " is not rounded to tf32 (x[i] = wmma::__float_to_tf32(x[i]) for every i < num_elements): " +
            std::to_string(value),
        running()->called_from});
}

// ---- what kernels say ----

namespace {

struct Printed {
  std::vector<std::string> lines;
  unsigned more = 0;
};

Printed& all_printed() {
  static Printed p;
  return p;
}

}  // namespace

std::string printed() {
  std::string all;
  for (const std::string& line : all_printed().lines) all += line + "\n";
  if (all_printed().more) all += "and " + std::to_string(all_printed().more) + " more\n";
  return all;
}

}  // namespace convlab::sim::plain

using namespace convlab::sim;

// The linker gives calls of printf and of assert to these (--wrap).
extern "C" int __wrap_printf(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  int length;
  if (Runner* r = running(); r && r->current) {
    InRuntime guard(*r, __builtin_return_address(0));
    char text[400];
    length = vsnprintf(text, sizeof text, format, arguments);
    auto& printed = plain::all_printed();
    std::string line = text;
    while (!line.empty() && line.back() == '\n') line.pop_back();
    if (printed.lines.size() < plain::kMostPrinted)
      printed.lines.push_back("block " + convlab::sim::text(builtins.block) + ", thread " +
                              convlab::sim::text(builtins.thread) + ": " + line);
    else printed.more++;
  } else {
    length = vprintf(format, arguments);
  }
  va_end(arguments);
  return length;
}

extern "C" [[noreturn]] void __real___assert_fail(const char*, const char*, unsigned, const char*);
extern "C" [[noreturn]] void __wrap___assert_fail(const char* assertion, const char* file, unsigned line,
                                                  const char* function) {
  if (Runner* r = running(); r && r->current) {
    InRuntime guard(*r, __builtin_return_address(0));
    fail({std::string("assertion failed: ") + assertion, __builtin_return_address(0)});
  }
  __real___assert_fail(assertion, file, line, function);
}
