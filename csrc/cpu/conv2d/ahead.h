// What is read next comes to the L2 while the machine multiplies.
#pragma once
#include "cpu/conv2d/product.h"

namespace convlab::CONVLAB_ISA {

// Memory that the next strip or panel reads, of which every tile asks for a share: so it comes to the L2 while the
// machine multiplies
class Ahead {
 public:
  // `rows` of `bytes`, `stride` bytes apart
  void share(const void* memory, int64_t bytes, int64_t tiles, int64_t rows = 1, int64_t stride = 0) {
    at_ = static_cast<const char*>(memory), end_ = at_ + bytes;
    rows_ = rows - 1, stride_ = stride, bytes_ = bytes;
    share_ = round_up((bytes * rows + tiles - 1) / tiles, kCacheLine);
  }
  void ask() {
    for (int64_t left = share_; left > 0; left -= kCacheLine, at_ += kCacheLine) {
      if (at_ >= end_) {
        if (rows_ == 0) return;
        rows_--, end_ += stride_, at_ = end_ - bytes_;
      }
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
  const char *at_ = nullptr, *end_ = nullptr;
  int64_t share_ = 0, rows_ = 0, stride_ = 0, bytes_ = 0;
};

}  // namespace convlab::CONVLAB_ISA
