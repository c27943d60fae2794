// Memory for packed weights and panels. Each thread keeps its block from call to call (a fresh one would cost more page
// faults than the work it is for), up to kKept bytes; nothing in it outlives the call that wrote it. Under
// AddressSanitizer a call may touch the bytes it asked for and no others, and finds NaN in them.
#pragma once
#include <cstdint>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>

#include "cpu/poison.h"

namespace convlab {

class CpuScratch {
 public:
  enum Use { shared, own, uses };  // by all threads of a call, held by the caller; by one thread

  CpuScratch(Use use, int64_t bytes) : block_(blocks()[use]) {
    if (bytes > block_.bytes) {
      block_.release();
      block_.data = static_cast<char*>(::operator new(size_t(bytes), kAlignment, std::nothrow));
      if (!block_.data)
        throw std::runtime_error(
            "convlab: out of memory: the system has no " + std::to_string(bytes) +
            " bytes for packed weights and panels: free memory, or take algo='reference', which needs none");
      block_.bytes = bytes;
    }
    ASAN_UNPOISON_MEMORY_REGION(block_.data, bytes);
#if defined(__SANITIZE_ADDRESS__)
    if (bytes) std::memset(block_.data, 0xff, bytes);
#endif
  }
  ~CpuScratch() {
    ASAN_POISON_MEMORY_REGION(block_.data, block_.bytes);
    if (block_.bytes > kKept) block_.release();
  }
  CpuScratch(const CpuScratch&) = delete;

  char* get() const { return block_.data; }

 private:
  static constexpr int64_t kKept = 64 << 20;
  static constexpr std::align_val_t kAlignment{4096};  // a page

  struct Block {
    char* data = nullptr;
    int64_t bytes = 0;
    void release() {
      ::operator delete(data, kAlignment);
      data = nullptr, bytes = 0;
    }
    ~Block() { release(); }
  };
  static Block* blocks() {
    static thread_local Block all[uses];
    return all;
  }

  Block& block_;
};

}  // namespace convlab
