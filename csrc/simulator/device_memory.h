// Simulated device memory: buffers far apart in a reserved range of addresses. What lies between them is not mapped, so a
// wild access faults, and each buffer ends where its page ends, so an access just behind it faults too.
#pragma once
#include <cstddef>
#include <string>

#include "race_marks.h"
#include "runtime.h"

namespace convlab::sim {

struct Buffer {
  char* begin;
  size_t bytes;
  std::string name;
  Element element;
  bool read_only;    // a kernel's write is an error
  bool initialised;  // a kernel may read it before a kernel wrote it
  char* pages;
  size_t page_bytes, first_slot, slots;
  Shadow shadow;
};

// Allocates a buffer whose address has `alignment_like`'s remainder modulo 256 (CUDA's own alignment) as far as 16 bytes.
Buffer* allocate(size_t bytes, unsigned element_bytes, const char* name, const void* alignment_like);
void protect(Buffer* buffer);  // read only from now on
void release(Buffer* buffer);
void forget_marks();  // of every buffer: what has been written so far counts as initialised, and orders nothing

Buffer* buffer_at(const char* p);      // the one whose room in the address range holds p, or null
bool in_device_memory(const char* p);  // in the reserved range
std::string describe_address(const void* p);

// A host array as a kernel sees it: a copy of it in device memory.
class DeviceCopy {
 public:
  // to be read (element_bytes: 1, 2, 4 or 8); to be written: full of NaN (0x7fff...) until a kernel writes it;
  // scratch is an output that nobody wants, of elements of any size
  static DeviceCopy input(const void* host, size_t bytes, unsigned element_bytes, const char* name);
  static DeviceCopy scratch(size_t bytes, const char* name);
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
