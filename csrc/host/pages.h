// Large outputs whose pages the system has not lent yet ask for them by the 2 MB, where it has such: that takes less
// time than a fault for each 4 KB. The first of these are touched before the threads start, for two threads whose first
// faults meet in one mapping can wait for each other until the next tick of the clock, 4 ms. Nothing else changes: where
// pages are there already, nothing is asked.
#pragma once
#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace convlab {

constexpr uintptr_t kPage = 4 << 10, kLargePage = 2 << 20;
constexpr int64_t kAsked = 4 << 20;  // bytes from which on an output holds a large page at least
constexpr uintptr_t kTouched = 32 << 20;  // bytes at most: of more, threads clear the rest side by side

inline void ask_for_large_pages(void* data, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (bytes < kAsked) return;
  const uintptr_t from = reinterpret_cast<uintptr_t>(data), to = from + uintptr_t(bytes),
                  begin = (from + kLargePage - 1) / kLargePage * kLargePage, end = to / kLargePage * kLargePage;
  unsigned char there = 0;
  if (mincore(reinterpret_cast<void*>((begin + end) / 2 / kPage * kPage), 1, &there) != 0 || (there & 1)) return;
  if (madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE) != 0) return;
  for (uintptr_t page = begin; page < end && page < begin + kTouched; page += kLargePage)
    *reinterpret_cast<volatile char*>(page) = 0;
#endif
}

}  // namespace convlab
