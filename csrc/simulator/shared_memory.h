// The shared memory of the running block: an arena, in which arrays are laid out as the block's threads reach their
// declarations. Every block finds it full of poison, with room between the arrays.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "simulator/runtime.h"

namespace convlab::sim {

constexpr size_t kSharedLimit = 227 * 1024;       // of a block, on sm_90; other architectures have less
constexpr size_t kStaticSharedLimit = 48 * 1024;  // of static arrays, on every architecture
constexpr uint64_t kPoison = 0x7fff7fff7fff7fff;  // NaN as float64, float32, float16 and bfloat16, and a huge int

class SharedMemory {
 public:
  struct Array {
    const void* key;  // null for the dynamic array
    const char* name;
    size_t begin, bytes;  // in the arena
    Element element;
  };

  SharedMemory() = default;
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;

  void begin_block(size_t dynamic_bytes);
  void* static_array(const void* key, size_t bytes, Element element, const char* name, Site site);
  // alignment: of the dynamic memory, which lies behind the static arrays. may_be_absent: a kernel may name it, if it does
  // not touch it, where the launch gave it no bytes
  void* dynamic_array(Element element, size_t alignment, Site site, bool may_be_absent = false);

  bool contains(const char* p) const { return p >= arena_ && p < arena_ + kArena; }
  size_t offset_of(const char* p) const { return size_t(p - arena_); }
  char* at(size_t offset) const { return arena_ + offset; }  // below kArena
  // The one that [offset, offset + bytes) lies in, or null.
  const Array* array_at(size_t offset, size_t bytes) const {
    for (const Array& a : arrays_)
      if (offset >= a.begin && offset + bytes <= a.begin + a.bytes) return &a;
    return nullptr;
  }
  const Array* nearest(size_t offset) const;
  size_t bytes_used() const { return static_bytes() + dynamic_bytes_; }

  static constexpr size_t kArena = 1 << 19;  // twice the limit: the red zones take room too

 private:
  // As nvcc counts them: up to where the dynamic memory begins, if the kernel has any.
  size_t static_bytes() const { return (static_bytes_ + static_unit_ - 1) / static_unit_ * static_unit_; }
  void check_limit(Site site) const;
  size_t reserve(size_t bytes);
  void poison_up_to(size_t end);

  char* arena_ = nullptr;
  size_t used_ = 0, static_bytes_ = 0, static_unit_ = 1, dynamic_bytes_ = 0;
  size_t touched_ = 0;  // the arena beyond it has never been handed out
  size_t poisoned_ = 0;
  std::vector<Array> arrays_;
};

}  // namespace convlab::sim
