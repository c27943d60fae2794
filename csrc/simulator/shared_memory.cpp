#include "simulator/shared_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "simulator/runner.h"

namespace convlab::sim {
namespace {

constexpr size_t kRedZone = 128;  // bytes between arrays: an index that is off by a few hits poison, not a neighbour
constexpr size_t kAlignment = 128;
constexpr size_t kStaticAlignment = 16, kDynamicAlignment = 128;  // SHARED's and DYNAMIC_SHARED's

}  // namespace

SharedMemory::~SharedMemory() {
  if (arena_) munmap(arena_, kArena);
}

void SharedMemory::begin_block(size_t dynamic_bytes) {
  if (!arena_) {
    void* p = mmap(nullptr, kArena, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) throw Error("convlab simulator: no memory for the simulated shared memory");
    arena_ = static_cast<char*>(p);
  }
  arrays_.clear();
  used_ = kRedZone;
  static_bytes_ = 0, static_unit_ = 1;
  dynamic_bytes_ = dynamic_bytes;
  poisoned_ = 0;
  poison_up_to(touched_);
  if (dynamic_bytes) arrays_.push_back({nullptr, "dynamic shared memory", reserve(dynamic_bytes), dynamic_bytes, {}});
}

size_t SharedMemory::reserve(size_t bytes) {
  const size_t begin = used_;
  used_ = (begin + bytes + kRedZone + kAlignment - 1) / kAlignment * kAlignment;
  touched_ = std::max(touched_, used_);
  poison_up_to(touched_);
  return begin;
}

void SharedMemory::poison_up_to(size_t end) {
  std::fill(reinterpret_cast<uint64_t*>(arena_ + poisoned_), reinterpret_cast<uint64_t*>(arena_ + end), kPoison);
  poisoned_ = end;
}

void* SharedMemory::static_array(const void* key, size_t bytes, Element element, const char* name, Site site) {
  for (const Array& a : arrays_)
    if (a.key == key) return arena_ + a.begin;
  static_bytes_ += (bytes + kStaticAlignment - 1) / kStaticAlignment * kStaticAlignment;
  if (static_bytes_ > kStaticSharedLimit)
    fail({"static shared memory: with '" + std::string(name) + "' (" + std::to_string(bytes) +
              " bytes) the block has " + std::to_string(static_bytes_) +
              " bytes, more than the 48 KiB that static arrays may take; use DYNAMIC_SHARED (extern __shared__)",
          site});
  check_limit(site);
  const size_t begin = reserve(bytes);
  arrays_.push_back({key, name, begin, bytes, element});
  return arena_ + begin;
}

void SharedMemory::check_limit(Site site) const {
  if (bytes_used() > kSharedLimit)
    fail({"shared memory: " + std::to_string(static_bytes()) + " static and " + std::to_string(dynamic_bytes_) +
              " dynamic bytes are more than the 227 KiB a block can have",
          site});
}

void* SharedMemory::dynamic_array(Element element, size_t alignment, Site site, bool may_be_absent) {
  if (alignment > static_unit_) {
    static_unit_ = alignment;
    check_limit(site);
  }
  if (!dynamic_bytes_) {
    if (!may_be_absent)
      fail({"DYNAMIC_SHARED in a kernel that was launched with 0 bytes of dynamic shared memory", site});
    for (const Array& a : arrays_)
      if (!a.key) return arena_ + a.begin;
    arrays_.push_back({nullptr, "dynamic shared memory", reserve(0), 0, element});
    return arena_ + arrays_.back().begin;
  }
  Element& known =
      arrays_[0]
          .element;  // a kernel may see the same memory as arrays of several types: the finest unit tells them all apart
  known =
      known.bytes == 0 ? element : Element{std::min(known.bytes, element.bytes), std::min(known.unit, element.unit)};
  return arena_ + arrays_[0].begin;
}

const SharedMemory::Array* SharedMemory::nearest(size_t offset) const {
  const Array* best = nullptr;
  size_t least = ~size_t(0);
  for (const Array& a : arrays_) {
    const size_t distance = offset < a.begin ? a.begin - offset : offset - std::min(offset, a.begin + a.bytes);
    if (distance < least) least = distance, best = &a;
  }
  return best;
}

void* shared_array(const void* key, size_t bytes, Element element, const char* name, Site site) {
  Runner& r = *running();
  InRuntime guard(r, site);
  return r.shared.static_array(key, bytes, element, name, site);
}

void* dynamic_shared(Element element, Site site) {
  Runner& r = *running();
  InRuntime guard(r, site);
  return r.shared.dynamic_array(element, kDynamicAlignment, site);
}

}  // namespace convlab::sim
