// wgrad by Winograd's minimal filtering: dw is 3 x 3 outputs of a filter, dy, of m x m taps.
//
// What it does    V of a strip of x is as in forward, and dy is transformed as a filter is. For each point, the product
//                 over the strip's tiles is added to what other strips gave, [source channels, target channels], which
//                 is transformed to dw in the end; or, where so many channels would fill memory, strip by strip, a
//                 block of channels at a time.
// What bounds it  multiply-adds, as in forward.
#include "cpu/conv2d/winograd/definition.h"
#include "cpu/conv2d/winograd/filters.h"
#include "cpu/conv2d/winograd/multiply.h"
#include "cpu/conv2d/winograd/outputs.h"
#include "cpu/conv2d/winograd/winograd.h"

namespace convlab::CONVLAB_ISA::winograd {

using convlab::winograd::Arrays;

// A panel's rows of tiles [row0, row1) of dy -> Y [points, tiles, panel]
template <int m>
void transform_grads(const Tiling& p, const float* dy, int64_t channel, int channels, int64_t row0, int64_t row1,
                     const int* places, float* panel, float* lines, const Stack& grads) {
  for (int64_t row = row0; row < row1;) {
    const Segment s = segment_of(p, row, row1);
    for (int k = 0; k < least(channels, kPanel); k += kBlock) {
      const Pixels pixels = look(dy + s.image * p.target.n + (channel + k) * p.target.c, p.target, s.row0 * m,
                                 least(s.row1 * m, p.target_rows), p.target_columns, channels - k, panel);
      for (int i = s.row0; i < s.row1; i++)
        transform_row<m, OfGrad>(p, pixels, i, 0, 0, places + (row - row0 + i - s.row0) * p.tile_columns(), lines,
                                 grads.at + k, kPanel, grads.stride);
    }
    row += s.row1 - s.row0;
  }
}

// panel [columns, block] -> to [rows <= L, columns], rows `stride` apart; or added to it
inline void put_transposed(const float* panel, int rows, int columns, float* to, int64_t stride, bool add,
                           Watch& watch) {
  for (int j = 0; j < columns; j += kWidth) {
    const int count = least(columns - j, kWidth);
    Floats block[kWidth];
#pragma GCC unroll 16
    for (int l = 0; l < kWidth; l++) block[l] = l < count ? load<float>(panel + (j + l) * kBlock) : Floats{};
    transpose<float>(block);
#pragma GCC unroll 16
    for (int l = 0; l < kWidth; l++)
      if (l < rows) {
        float* const row = to + l * stride + j;
        const Floats sum = add ? load_some<float>(row, count) + block[l] : block[l];
        watch.see(sum);
        store_some<float>(row, sum, count);
      }
  }
}

// Sums of the points, of a panel's vector and source channels [0, depth) -> their filters in dw
template <int m>
void put_filters(const Filters& f, const float* sums, int64_t stride, int depth, int lanes, float* taps, float* dw,
                 bool add, Watch& watch) {
  const TapStrides strides = tap_strides(f, depth);
  for (int c = 0; c < depth; c++) {
    Floats y[kTaps][kTaps];
    outputs_of_tile<m, m, m>(sums + c * kPanel, stride, y);
#pragma GCC unroll 9
    for (int t = 0; t < kAllTaps; t++)
      store<float>(taps + t * strides.tap + c * strides.channel, y[t / kTaps][t % kTaps]);
  }
  if (f.tap == 1) return put_transposed(taps, lanes, depth * kAllTaps, dw, f.lane, add, watch);
  for (int t = 0; t < kAllTaps; t++)
    put_transposed(taps + t * strides.tap, lanes, depth, dw + t * f.tap, f.lane, add, watch);
}

// Strips [first, last) of a group, for panels [panel0, panel1) -> dw
template <int m>
void wgrad_of_strips(const Tiling& p, const Arrays& a, const float* dy, const float* x, int group, int panel0,
                     int panel1, int64_t first, int64_t last, float* dw, bool check) {
  const Filters& f = p.filters;
  const int block = p.kept ? p.depth : p.depth_block;
  Watch watch;
  const auto put = [&](int panel, int c, int channels, const Stack& sums, bool add) {
    for (int b = 0; b < channels; b += p.depth_block)
      for (int v = 0; v < kTileVectors; v++) {
        const int k = panel * kPanel + v * kWidth, lanes = least(p.width - k, kWidth);
        if (lanes > 0)
          put_filters<m>(f, sums.at + v * kWidth + b * kPanel, sums.stride, least(p.depth_block, channels - b), lanes,
                         a.taps, dw + group * f.group + k * f.lane + (c + b) * f.depth_stride, add, watch);
      }
  };
  for (int64_t strip = first; strip < last; strip++) {
    const int64_t row0 = p.strip_begin(strip), row1 = p.strip_begin(strip + 1);
    const int tiles = int(row1 - row0) * p.tile_columns();
    const Runs runs = sort_tiles(p, row0, row1, a.places);
    transform_inputs<m>(p, x, group, row0, row1, a.places, a.pixels, a.lines, a.inputs);
    for (int panel = panel0; panel < panel1; panel++) {
      const int k = panel * kPanel, vectors = p.width - k > kWidth ? kTileVectors : 1;
      transform_grads<m>(p, dy, int64_t(group) * p.width + k, p.width - k, row0, row1, a.places, a.pixels, a.lines,
                         a.sums);
      for (int c = 0; c < p.depth; c += block) {
        const int channels = least(block, p.depth - c);
        Stack sums = a.filters;
        if (p.kept) sums.at += (panel - panel0) * p.points() * sums.stride;
        accumulate_all<m>(runs, a.inputs, tiles, c, c + channels, a.sums, vectors, p.kept && strip > first, sums);
        if (!p.kept || strip + 1 == last) put(panel, c, channels, sums, !p.kept && strip > first);
      }
    }
  }
  if (check && watch.unfinite()) define_filters(p, x, dy, group, panel0 * kPanel, least(panel1 * kPanel, p.width), dw);
}

template <int m>
void wgrad(const Tiling& p, const float* dy, const float* x, float* dw, float* sums, int64_t begin, int64_t end,
           char* scratch) {
  Carver carver{scratch};
  const Arrays a = lay_out(carver, p, true);
  const int64_t parts = p.parts(), size = p.filter_elements();
  for (int64_t piece = begin, next; piece < end; piece = next) {  // all parts of a slice that are this thread's at once
    const int64_t slice = piece / parts / p.groups;
    next = (piece / parts + 1) * parts < end ? (piece / parts + 1) * parts : end;
    const int64_t panel0 = piece % parts * p.panels_per_part, panel1 = panel0 + (next - piece) * p.panels_per_part;
    wgrad_of_strips<m>(p, a, dy, x, int(piece / parts % p.groups), int(panel0), least(int(panel1), p.panels()),
                       int64_t(p.strips) * slice / p.slices, int64_t(p.strips) * (slice + 1) / p.slices,
                       p.slices == 1 ? dw : sums + slice * size, p.slices == 1);
  }
}

void wgrad_any(const Tiling& p, const float* dy, const float* x, float* dw, float* sums, int64_t begin, int64_t end,
               char* scratch) {
  (p.m == 2 ? wgrad<2> : wgrad<4>)(p, dy, x, dw, sums, begin, end, scratch);
}

void add_slices(const Tiling& p, const float* dy, const float* x, const float* sums, float* dw, int64_t begin,
                int64_t end) {
  const int64_t channel = int64_t(p.depth) * kAllTaps, size = p.filter_elements();
  for (int64_t k = begin; k < end; k++) {
    Watch watch;
    for (int64_t i = k * channel; i < (k + 1) * channel; i += kWidth) {
      const int count = least(int((k + 1) * channel - i), kWidth);
      Floats sum = load_some<float>(sums + i, count);
      for (int s = 1; s < p.slices; s++) sum += load_some<float>(sums + s * size + i, count);
      watch.see(sum);
      store_some<float>(dw + i, sum, count);
    }
    if (watch.unfinite()) define_filters(p, x, dy, int(k / p.width), int(k % p.width), int(k % p.width) + 1, dw);
  }
}

}  // namespace convlab::CONVLAB_ISA::winograd

namespace convlab::CONVLAB_ISA {

constinit const decltype(kernels::winograd_wgrad)::Functions winograd_wgrad_kernel =
    untyped_of<winograd::wgrad_any>(kernels::winograd_wgrad);
constinit const decltype(kernels::winograd_add_slices)::Functions winograd_add_slices_kernel =
    untyped_of<winograd::add_slices>(kernels::winograd_add_slices);

}  // namespace convlab::CONVLAB_ISA
