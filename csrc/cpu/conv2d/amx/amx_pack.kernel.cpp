// Weights as tile registers take them: for 16 channels of the target, pairs of elements that are summed lie side by side.
// Those of a vector of channels are gathered first, however the filters lie, with as few changes of place as that needs;
// then steps take theirs in the order of their runs of taps.
#include "cpu/conv2d/amx/pairs.h"
#include "cpu/conv2d/amx/tiles.h"

#if defined(CONVLAB_HAS_AMX) && defined(__AVX512F__)

namespace convlab::CONVLAB_ISA::amx {

using Pairs = FloatBits;  // an element in the lower half of a lane, and the next one in the upper

// A vector's weights, in pairs of elements; from tap to tap and from channel to channel, in elements
struct Gathered {
  const uint32_t* pairs;
  int64_t tap, channel;

  CONVLAB_INLINE Pairs at(int64_t element) const { return load<uint32_t>(pairs + element / 2 * kColumns); }
  CONVLAB_INLINE Pairs lower(int64_t element) const { return element % 2 ? at(element) >> 16 : at(element) & 0xffffu; }
  CONVLAB_INLINE Pairs upper(int64_t element) const {
    return element % 2 ? at(element) & 0xffff0000u : at(element) << 16;
  }
};

// Rows of 16 lanes x taps elements, of two depths -> [taps, lanes] of pairs, `step` apart. row: memory for one
template <class T>
CONVLAB_AMX void pair_depths(const T* first, const T* second, int lanes, int taps, uint32_t* row, uint32_t* to,
                             int64_t step) {
  for (int i = 0; i < lanes * taps; i += kColumns) {
    const int count = least_of(lanes * taps - i, kColumns);
    store<float>(reinterpret_cast<float*>(row + i), load_pairs(first + i, second ? second + i : nullptr, count));
  }
  for (int t = 0; t < taps; t += kColumns) {
    Vec<float> block[kColumns];
#pragma GCC unroll 16
    for (int l = 0; l < kColumns; l++)
      block[l] = l < lanes ? load<float>(reinterpret_cast<const float*>(row + l * taps + t)) : Vec<float>{};
    transpose<float>(block);
#pragma GCC unroll 16
    for (int i = 0; i < kColumns; i++)
      if (t + i < taps) store<float>(reinterpret_cast<float*>(to + (t + i) * step), block[i]);
  }
}

// w: of the vector's first channel
template <class T> CONVLAB_AMX Gathered gather(const Filters& f, const T* w, int lanes, uint32_t* to) {
  const int taps = f.R * f.S, padded = int(round_up(f.depth, 2));
  const int64_t tap = int64_t(padded) * kColumns;  // in halves
  uint16_t* const halves = reinterpret_cast<uint16_t*>(to);
  if (f.depth_stride != 1 && f.lane != 1 && f.depth_stride == taps) {  // a lane's elements are one run
    const int all = f.depth * taps;
    turn_pairs(w, f.lane, lanes, all, halves, int(round_up(all, 2)));
    return {to, 1, taps};
  }
  if (f.depth_stride != 1 && f.lane != 1) {
    uint32_t* const row = to + padded / 2 * taps * kColumns;
    for (int c = 0; c < f.depth; c += 2) {
      const T* const at = w + c * f.depth_stride;
      pair_depths(at, c + 1 < f.depth ? at + f.depth_stride : nullptr, lanes, taps, row, to + c / 2 * kColumns,
                  tap / 2);
    }
    return {to, padded, 1};
  }
  for (int t = 0; t < taps; t++)
    if (f.depth_stride == 1) turn_pairs(w + t * f.tap, f.lane, lanes, f.depth, halves + t * tap, padded);
    else pair_up(w + t * f.tap, f.depth_stride, f.depth, lanes, halves + t * tap, padded);
  return {to, padded, 1};
}

// A step's pairs [depth / 2, kColumns] -> a tile's rows [kColumns, depth]
CONVLAB_AMX void turn_step(Vec<float> (&pairs)[kRows], int depth, char* to) {
  for (int e = depth / 2; e < kRows; e++) pairs[e] = Vec<float>{};
  transpose<float>(pairs);
#pragma GCC unroll 16
  for (int k = 0; k < kColumns; k++)
    store_halves(reinterpret_cast<uint16_t*>(to) + k * depth, depth, (__m512i)pairs[k]);
}

template <class T>
CONVLAB_AMX void pack(const AmxProduct& a, const T* w, char* packed, int64_t begin, int64_t end, uint32_t* scratch) {
  const Filters& f = a.filters;
  const int vectors = a.panels() * 2, channels = a.pixel_channels;
  for (int64_t i = begin; i < end; i++) {
    const int64_t group = i / vectors, vector = i % vectors;
    const int lanes = least_of(f.width - int(vector) * kColumns, kColumns);
    const bool empty = lanes <= 0;
    const Gathered all =
        empty ? Gathered{} : gather(f, w + group * f.group + vector * kColumns * f.lane, lanes, scratch);
    for (const Segment* g = a.segments; g < a.segments + a.segment_count; g++) {
      const Phase &rows = a.rows[g->rows], &columns = a.columns[g->columns];
      const int64_t tile = int64_t(g->depth / 2) * kRowBytes;
      const int taps = empty ? 0 : g->run_taps;
      char* to = packed + (group * a.panels() + vector / 2) * a.panel_weights + g->weights + vector % 2 * tile;
      for (int r = 0; r < rows.tap_count; r++)
        for (int run = 0; run < g->runs; run++) {
          const int* const taps_of_run = columns.taps + run * g->run_taps;
          int tap = 0, c = 0;  // of the next element
          const auto here = [&] {
            return (int64_t(rows.taps[r]) * f.S + taps_of_run[tap]) * all.tap + c * all.channel;
          };
          const auto next = [&](int count) {
            if ((c += count) >= channels) c = 0, tap++;
          };
          for (int b = 0; b < g->blocks; b++, to += 2 * tile) {  // over the other vector's
            Vec<float> pairs[kRows];
            for (int e = 0; e < g->depth / 2; e++) {
              if (tap < taps && c + 2 <= f.depth && all.channel == 1 && c % 2 == 0) {
                pairs[e] = (Vec<float>)all.at(here());
                next(2);
                continue;
              }
              Pairs both{};
              if (tap < taps && c < f.depth) both = all.lower(here());
              next(1);
              if (tap < taps && c < f.depth) both |= all.upper(here());
              next(1);
              pairs[e] = (Vec<float>)both;
            }
            if (a.planes) turn_step(pairs, g->depth, to);
            else
              for (int e = 0; e < g->depth / 2; e++)
                store<float>(reinterpret_cast<float*>(to) + e * kColumns, pairs[e]);
          }
        }
    }
  }
}

}  // namespace convlab::CONVLAB_ISA::amx

#else

namespace convlab::CONVLAB_ISA::amx {

template <class T> void pack(const convlab::amx::AmxProduct&, const T*, char*, int64_t, int64_t, uint32_t*) {}

}  // namespace convlab::CONVLAB_ISA::amx

#endif

CONVLAB_DEFINE_FOR(amx_pack, amx::pack<float>, amx::pack<uint16_t>, amx::pack<uint16_t>, amx::pack<uint16_t>)
