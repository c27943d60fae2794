// What the next strip reads comes to the L2 while the machine multiplies, where it is one run of memory, or one a channel.
#pragma once
#include "cpu/conv2d/ahead.h"
#include "cpu/conv2d/register_tiled/register_tiled.h"
#include "cpu/conv2d/strips.h"

namespace convlab::CONVLAB_ISA::register_tiled {

// More would drive the strip at hand out of the L2, where planes have copies as well
constexpr int64_t kAheadBytes = 384 << 10, kPlanesAheadBytes = 256 << 10;

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
