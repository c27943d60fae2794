// What is read next comes to the L2 while the machine multiplies.
#pragma once
#include "cpu/conv2d/product.h"

namespace convlab::CONVLAB_ISA {

// Memory that the next strip or panel reads, of which every tile asks for a share: so it comes to the L2 while the
// machine multiplies
class Ahead {
 public:
  static constexpr int kMostStretches = 8;
  struct Stretch {  // bytes, from the first one of a row's on
    int64_t at, count;
  };

  // `rows` of `bytes`, `stride` bytes apart
  void share(const void* memory, int64_t bytes, int64_t tiles, int64_t rows = 1, int64_t stride = 0) {
    const Stretch all{0, bytes};
    share(memory, &all, 1, tiles, rows, stride);
  }
  // Up to kMostStretches of each of `rows`
  void share(const void* memory, const Stretch* stretches, int count, int64_t tiles, int64_t rows, int64_t stride) {
    row_ = static_cast<const char*>(memory), rows_ = rows, stride_ = stride;
    count_ = count;
    int64_t bytes = 0;
    for (int i = 0; i < count_; i++) {
      stretches_[i] = stretches[i];
      bytes += count * rows == 1 ? stretches[i].count : round_up(stretches[i].count, kCacheLine) + kCacheLine;
    }
    share_ = round_up((bytes * rows + tiles - 1) / tiles, kCacheLine);
    next_ = 0;
    begin();
  }
  void ask() {
    for (int64_t left = share_; left > 0; left -= kCacheLine, at_ += kCacheLine) {
      if (at_ >= end_ && !begin()) return;
      __builtin_prefetch(at_, 0, 2);
    }
  }
  // A share of one run, for the steps of a loop to ask for, so that requests do not wait for one another. Memory that is
  // there already where there is none, or where rows are left, whose share is asked for at once
  struct Steps {
    const char* at;
    int64_t step;
  };
  Steps in_steps(int64_t count, const void* otherwise) {
    if (rows_) {
      ask();
      return {static_cast<const char*>(otherwise), 0};
    }
    const char* const from = at_;
    at_ = end_ - at_ < share_ ? end_ : at_ + share_;
    if (from == at_) return {static_cast<const char*>(otherwise), 0};
    return {from, (at_ - from) / count};
  }

 private:
  // The next stretch, from the first of its lines on; false where there is none
  bool begin() {
    if (!rows_) return false;
    const char* const from = row_ + stretches_[next_].at;
    at_ = from - reinterpret_cast<uintptr_t>(from) % kCacheLine, end_ = from + stretches_[next_].count;
    if (++next_ == count_) next_ = 0, rows_--, row_ += stride_;
    return true;
  }

  const char *at_ = nullptr, *end_ = nullptr, *row_ = nullptr;
  int64_t share_ = 0, rows_ = 0, stride_ = 0;
  Stretch stretches_[kMostStretches];
  int count_ = 0, next_ = 0;
};

}  // namespace convlab::CONVLAB_ISA
