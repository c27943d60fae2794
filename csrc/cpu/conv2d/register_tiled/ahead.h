// What the next strip reads comes to the L2 while the machine multiplies, where it is one run of memory, or one a channel.
#pragma once
#include "cpu/conv2d/ahead.h"
#include "cpu/conv2d/register_tiled/register_tiled.h"
#include "cpu/conv2d/strips.h"

namespace convlab::CONVLAB_ISA::register_tiled {

// More would drive the strip at hand out of the L2, where planes have copies as well
constexpr int64_t kAheadBytes = 384 << 10, kPlanesAheadBytes = 256 << 10;

// A strip's rows of `channels`, from the first one's first image on: where pixels lie one after another with all their
// channels, one run of memory; of planes, a run an image where these are whole, else one a channel
template <class T>
void look_ahead(const Product& p, const Strip& s, const T* memory, const Strides& at, int channels, int row, int rows,
                int64_t tiles, Ahead& ahead) {
  const bool whole = p.rows_per_strip == p.rows.target, planes = at.w == 1;
  if (at.w != channels && !planes) return;
  const int64_t image = planes ? channels * at.c : at.n, images = s.n1 - s.n0;
  const bool one = whole && image == at.n;  // run of all images
  const int64_t runs = one ? 1 : whole ? images : planes ? channels : 1;
  const int64_t bytes = (one ? images * at.n : whole ? image : rows * at.h) * int64_t(sizeof(T));
  if (runs * bytes <= (planes ? kPlanesAheadBytes : kAheadBytes))
    ahead.share(memory + s.n0 * at.n + (whole ? 0 : row * at.h), bytes, tiles, runs,
                (whole ? at.n : at.c) * int64_t(sizeof(T)));
}

}  // namespace convlab::CONVLAB_ISA::register_tiled
