// Simulated device memory: buffers far apart in a reserved range of addresses. What lies between them is not mapped, so
// a wild access faults, and each buffer ends where its page ends, so an access just behind it faults too.
#pragma once
#include <atomic>
#include <cstddef>
#include <string>

#include "simulator/race_marks.h"
#include "simulator/runtime.h"

namespace convlab::sim {

struct Buffer {
  char* begin;
  size_t bytes;
  std::string name;
  Element element;
  bool read_only;  // a kernel's write is an error
  bool initialised;  // a kernel may read it before a kernel wrote it
  char* pages;
  size_t page_bytes, first_slot, slots;
  Shadow shadow;
  bool managed = false;  // the host may use it, too, while no kernel runs
};

// Allocates a buffer whose address has `alignment_like`'s remainder modulo 256 (CUDA's own alignment) as far as 16
// bytes.
Buffer* allocate(size_t bytes, unsigned element_bytes, const char* name, const void* alignment_like);
void protect(Buffer* buffer);  // read only from now on
void release(Buffer* buffer);
void forget_marks();  // of every buffer: what has been written so far counts as initialised, and orders nothing

// The reserved range of addresses, in slots. A buffer takes one or more of them for itself.
struct Region {
  static constexpr size_t kSlots = 1024;
  char* begin = nullptr;  // until the first buffer
  size_t bytes = 0;
  unsigned log_slot_bytes = 0;
  std::atomic<Buffer*> slots[kSlots] = {};
};
extern Region region;

inline bool in_device_memory(const char* p) { return size_t(p - region.begin) < region.bytes; }

// The buffer in whose slots p lies, or null.
inline Buffer* buffer_at(const char* p) {
  return in_device_memory(p)
             ? region.slots[size_t(p - region.begin) >> region.log_slot_bytes].load(std::memory_order_acquire)
             : nullptr;
}

std::string describe_address(const void* p);

// A host array as a kernel sees it: a copy of it in device memory.
class DeviceCopy {
 public:
  // to be read (element_bytes: 1, 2, 4 or 8); to be written: full of NaN (0x7fff...) until a kernel writes it;
  // scratch is an output that nobody wants, of elements of 2 bytes or more
  static DeviceCopy input(const void* host, size_t bytes, unsigned element_bytes, const char* name);
  static DeviceCopy scratch(size_t bytes, const char* name, unsigned element_bytes = 2);
  static DeviceCopy output(void* host, size_t bytes, unsigned element_bytes, const char* name);
  DeviceCopy(DeviceCopy&& other) noexcept;
  DeviceCopy(const DeviceCopy&) = delete;
  ~DeviceCopy();
  void* get() const { return buffer_ ? buffer_->begin : nullptr; }
  void copy_back();  // an output, to the host

 private:
  DeviceCopy(void* host, Buffer* buffer) : host_(host), buffer_(buffer) {}
  void* host_;  // of an output
  Buffer* buffer_;
};

}  // namespace convlab::sim
