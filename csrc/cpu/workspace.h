// A call's scratch memory in arrays. What takes them is a constructor, a template over who gives them:
//
//   template <class A> struct Bench {
//     A *sums, *rows;
//     template <class Memory> CONVLAB_INLINE Bench(Memory& memory, const Problem& p) {
//       memory.take(sums, p.n), memory.take(rows, p.rows * p.n);
//     }
//   };
//
// Measure counts the bytes, Carver cuts a block of so many into the arrays.
#pragma once
#include <cstdint>

#include "cpu/poison.h"
#include "dtype.h"

// A kernel's file must not emit a function that another instruction set's shares
#define CONVLAB_INLINE [[gnu::always_inline]] inline

namespace convlab {

constexpr int64_t kCacheLine = 64;

#if defined(__SANITIZE_ADDRESS__)
constexpr int kGap = 1;  // at least one poisoned byte behind every array; a vector's worth where it is made of vectors
#else
constexpr int kGap = 0;
#endif

// Arrays begin on cache lines: a vector astride two lines costs two accesses.
constexpr int64_t bytes_taken(int64_t bytes) {
  return bytes > 0 ? (bytes + kGap + kCacheLine - 1) / kCacheLine * kCacheLine : 0;
}

struct Measure {
  int64_t bytes = 0;

  template <class T> CONVLAB_INLINE void take(T*& array, int64_t count) {
    array = nullptr;
    bytes += bytes_taken(count * int64_t(sizeof(T)));
  }
};

struct Carver {
  char* at;

  template <class T> CONVLAB_INLINE void take(T*& array, int64_t count) {
    array = reinterpret_cast<T*>(at);
    char* const end = at + count * int64_t(sizeof(T));
    at += bytes_taken(end - at);
    ASAN_POISON_MEMORY_REGION(end, at - end);
  }
};

// The bytes that lay_out(memory) takes; or lay_out(memory, A()), where A are what sums of the type are kept in; or
// Bench<A>(memory, arguments...)
template <class F> int64_t measured(const F& lay_out) {
  Measure memory;
  lay_out(memory);
  return memory.bytes;
}
template <class F> int64_t measured(DType dtype, const F& lay_out) {
  return measured([&](Measure& memory) {
    if (dtype == DType::float64) lay_out(memory, double());
    else lay_out(memory, float());
  });
}
template <template <class> class Bench, class... Arguments>
int64_t measured(DType dtype, const Arguments&... arguments) {
  return measured(dtype, [&](Measure& memory, auto sum) { Bench<decltype(sum)>(memory, arguments...); });
}

}  // namespace convlab
