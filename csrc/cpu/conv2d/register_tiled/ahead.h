// What the next strip reads comes to the L2 while the machine multiplies, where it is one run of memory, or one a channel.
#pragma once
#include "cpu/conv2d/register_tiled/register_tiled.h"
#include "cpu/conv2d/strips.h"

namespace convlab::CONVLAB_ISA::register_tiled {

// More would drive the strip at hand out of the L2, where planes have copies as well
constexpr int64_t kAheadBytes = 384 << 10, kPlanesAheadBytes = 256 << 10;

// Memory that the next strip reads, of which every tile asks for a share: so it comes while the machine multiplies
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

// A strip's rows of all `channels`, where they are one run of memory, pixels lie one after another, or images are whole; or
// one a channel
template <class T>
void look_ahead(const Product& p, const Strip& s, const T* memory, const Strides& at, int channels, int row, int rows,
                int64_t tiles, Ahead& ahead) {
  const bool whole = p.rows_per_strip == p.rows.target, planes = at.w == 1;
  if (at.w != channels && !planes) return;
  const int64_t runs = planes && !whole ? channels : 1;
  const int64_t bytes = (whole ? (s.n1 - s.n0) * at.n : rows * at.h) * int64_t(sizeof(T));
  if (runs * bytes <= (planes ? kPlanesAheadBytes : kAheadBytes))
    ahead.share(memory + s.n0 * at.n + (whole ? 0 : row * at.h), bytes, tiles, runs, at.c * int64_t(sizeof(T)));
}

}  // namespace convlab::CONVLAB_ISA::register_tiled
