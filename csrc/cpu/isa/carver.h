// A call's scratch memory in arrays.
#pragma once
#include "cpu/poison.h"
#include "cpu/product.h"

namespace convlab::CONVLAB_ISA {

#if defined(__SANITIZE_ADDRESS__)
constexpr int kGap = 1;  // at least one poisoned byte behind every array; a vector's worth where it is made of vectors
#else
constexpr int kGap = 0;
#endif

// Cuts a block of scratch into arrays that begin on cache lines: a vector astride two lines costs two accesses. An
// array takes up to kCacheLine bytes more than its elements.
struct Carver {
  char* at;

  template <class T> T* take(int64_t count) {
    char *const array = at, *const end = at + count * int64_t(sizeof(T));
    if (count > 0) at += (end - array + kGap + kCacheLine - 1) / kCacheLine * kCacheLine;
    ASAN_POISON_MEMORY_REGION(end, at - end);
    return reinterpret_cast<T*>(array);
  }
};

}  // namespace convlab::CONVLAB_ISA
