#include "simulator/device_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "simulator/fork.h"
#include "simulator/runner.h"
#include "simulator/session.h"

namespace convlab::sim {
namespace {

// The range of addresses is reserved, not used; where a process may not reserve so much (39-bit machines, limits),
// less.
constexpr unsigned kLogLargestRegion = 38, kLogSmallestRegion = 32;  // 256 GiB, 4 GiB
constexpr unsigned kLogSlots = 10;
static_assert(Region::kSlots == size_t(1) << kLogSlots);

void reserve_region() {  // with the allocation mutex held
  if (region.begin) return;
  for (unsigned log_bytes = kLogLargestRegion; log_bytes >= kLogSmallestRegion; log_bytes--) {
    void* p = mmap(nullptr, size_t(1) << log_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) continue;
    region.log_slot_bytes = log_bytes - kLogSlots;
    region.bytes = size_t(1) << log_bytes;
    region.begin = static_cast<char*>(p);
    return;
  }
  throw Error(
      "convlab simulator: cannot reserve 4 GiB of addresses for the simulated device memory (is `ulimit -v` set?)");
}

std::mutex& allocation_mutex() {
  static std::mutex m;
  return m;
}

size_t page() {
  static const size_t bytes = size_t(sysconf(_SC_PAGESIZE));
  return bytes;
}

size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

std::string hex(const void* p) {
  char text[32];
  snprintf(text, sizeof text, "%p", p);
  return text;
}

}  // namespace

constinit Region region;

Buffer* allocate(size_t bytes, unsigned element_bytes, const char* name, const void* alignment_like) {
  constexpr size_t kAlignment = 16;  // of the widest access
  const size_t shift = reinterpret_cast<uintptr_t>(alignment_like) % kAlignment;
  const size_t page_bytes = round_up(bytes + 2 * kAlignment, page());

  const ForkWaits until_it_is_done;
  std::lock_guard lock(allocation_mutex());
  reserve_region();
  const size_t slot_bytes = size_t(1) << region.log_slot_bytes;
  const size_t slots = page_bytes / slot_bytes + 1;  // at least a page of every slot stays unmapped in front
  size_t first = 0;
  for (size_t free = 0; free < slots; first++) {
    if (first + slots - free > Region::kSlots)
      throw Error("convlab simulator: no room for " + std::to_string(bytes) + " bytes of '" + name +
                  "' in the simulated device memory");
    free = region.slots[first].load(std::memory_order_relaxed) ? 0 : free + 1;
  }
  first -= slots;

  // the pages lie in the middle of their slots; the buffer ends as close to their end as its alignment allows
  const size_t room = slots * slot_bytes - page_bytes;
  char* pages = region.begin + first * slot_bytes + round_up(room / 2, page());
  if (mprotect(pages, page_bytes, PROT_READ | PROT_WRITE) != 0)
    throw Error("convlab simulator: out of memory for " + std::to_string(bytes) + " bytes of '" + name + "'");
  char* begin = pages + (page_bytes - bytes - shift) / kAlignment * kAlignment + shift;
  if (begin + bytes > pages + page_bytes) begin -= kAlignment;

  auto* buffer = new Buffer{begin, bytes, name,  {element_bytes, std::min(element_bytes, 4u)},
                            false, true,  pages, page_bytes,
                            first, slots, {},    false};
  for (size_t i = first; i < first + slots; i++) region.slots[i].store(buffer, std::memory_order_release);
  return buffer;
}

void protect(Buffer* buffer) {
  buffer->read_only = true;
  mprotect(buffer->pages, buffer->page_bytes, PROT_READ);
}

void release(Buffer* buffer) {
  const ForkWaits until_it_is_done;
  std::lock_guard lock(allocation_mutex());
  madvise(buffer->pages, buffer->page_bytes, MADV_DONTNEED);
  mprotect(buffer->pages, buffer->page_bytes, PROT_NONE);
  for (size_t i = buffer->first_slot; i < buffer->first_slot + buffer->slots; i++)
    region.slots[i].store(nullptr, std::memory_order_release);
  delete buffer;
}

void copy_to_symbol(void* symbol, const void* source, size_t bytes) { std::memcpy(symbol, source, bytes); }

void forget_marks() {
  std::lock_guard lock(allocation_mutex());
  for (auto& slot : region.slots)
    if (Buffer* b = slot.load(std::memory_order_relaxed)) b->initialised = true, b->shadow.clear();
}

std::string describe_address(const void* address) {
  const char* p = static_cast<const char*>(address);
  if (Runner* r = running(); r && r->on_any_stack(p))
    return r->below_own_stack(p) ? "below the thread's stack: its local variables take more than 128 KiB"
           : r->on_own_stack(p)  ? "on the thread's own stack"
                                 : "on the stack of another thread, which only that thread may use";
  const Buffer* b = buffer_at(p);
  if (!b) return hex(p) + (in_device_memory(p) ? ", far from every device buffer" : ", which is not in device memory");
  const std::string buffer = "'" + b->name + "' (" + std::to_string(b->bytes) + " bytes)";
  if (p < b->begin) return std::to_string(b->begin - p) + " bytes before " + buffer;
  if (p >= b->begin + b->bytes)
    return std::to_string(p - b->begin - std::ptrdiff_t(b->bytes)) + " bytes behind the end of " + buffer;
  return "byte " + std::to_string(p - b->begin) + " of " + buffer +
         (b->read_only ? ", which the kernel may only read" : "");
}

namespace {

bool without_data() { return current_session() && current_session()->without_data(); }

Buffer* poisoned(Buffer* buffer) {
  if (without_data()) return buffer;
  buffer->initialised = false;
  for (size_t i = 0; i < buffer->bytes; i += sizeof kPoison)
    std::memcpy(buffer->begin + i, &kPoison, std::min(sizeof kPoison, buffer->bytes - i));
  return buffer;
}

}  // namespace

DeviceCopy DeviceCopy::input(const void* host, size_t bytes, unsigned element_bytes, const char* name) {
  if (!host) return {nullptr, nullptr};  // an optional argument that is absent
  Buffer* buffer = allocate(bytes, element_bytes, name, host);
  if (!without_data()) std::memcpy(buffer->begin, host, bytes);
  protect(buffer);
  return {nullptr, buffer};
}

DeviceCopy DeviceCopy::output(void* host, size_t bytes, unsigned element_bytes, const char* name) {
  if (!host) return {nullptr, nullptr};
  return {without_data() ? nullptr : host, poisoned(allocate(bytes, element_bytes, name, host))};
}

DeviceCopy DeviceCopy::scratch(size_t bytes, const char* name, unsigned element_bytes) {
  return {nullptr, poisoned(allocate(bytes, element_bytes, name, nullptr))};
}

DeviceCopy::DeviceCopy(DeviceCopy&& other) noexcept : host_(other.host_), buffer_(other.buffer_) {
  other.buffer_ = nullptr;
}

DeviceCopy::~DeviceCopy() {
  if (buffer_) release(buffer_);
}

void DeviceCopy::copy_back() {
  if (host_) std::memcpy(host_, buffer_->begin, buffer_->bytes);
}

}  // namespace convlab::sim
