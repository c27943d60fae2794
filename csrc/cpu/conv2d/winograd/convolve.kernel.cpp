// Forward and dgrad by Winograd's minimal filtering: a tile of m x m outputs takes (m + 2)^2 products a channel instead
// of 9 m^2, a quarter with m = 4.
//
// What it does    A strip's source goes through the input transformation into a matrix [channels, tiles] for each
//                 point; each point's is multiplied with its matrix of transformed filters; and what comes out is
//                 transformed back. Channels are innermost everywhere, so that transformations work on vectors of
//                 them. Tiles at the lower and right edge leave points out.
// Against register_tiled  a quarter (m = 4) or 4/9 (m = 2) of the multiply-adds, for transformations that take 20 to 45
//                 % of the time, and rounding that a tile's outputs share.
// What bounds it  multiply-adds of the products: 75 to 80 % of the time from 128 channels on, at 80 % of their peak, for
//                 sums of 32 channels are short; below, half of it, and NCHW's transposition a quarter.
#include "cpu/conv2d/block/ending.h"
#include "cpu/conv2d/winograd/definition.h"
#include "cpu/conv2d/winograd/filters.h"
#include "cpu/conv2d/winograd/multiply.h"
#include "cpu/conv2d/winograd/outputs.h"
#include "cpu/conv2d/winograd/winograd.h"

namespace convlab::CONVLAB_ISA::winograd {

using convlab::winograd::Arrays;

template <int m>
void filters_of_panels(const Tiling& p, const float* w, float* filters, int64_t begin, int64_t end, char* scratch) {
  Carver carver{scratch};
  const Arrays arrays = lay_out(carver, p, false);
  for (int64_t i = begin; i < end; i++)
    transform_filters<m>(p, w, int(i / p.panels()), int(i % p.panels()), 0, p.depth, arrays.taps,
                         {filters + i * p.points() * arrays.filters.stride, arrays.filters.stride});
}

template <int m>
void convolve(const Tiling& p, const float* source, const float* w, const float* filters, const float* bias,
              float* target, const Finish* finish, int64_t begin, int64_t end, char* scratch) {
  Carver carver{scratch};
  const Arrays a = lay_out(carver, p, false);
  const Finished<float> finished(carver, finish ? finished_elements(p, finish->ending.R, finish->Q) : 0);
  const Strides in_panel{0, 1, int64_t(p.target_columns) * kBlock, kBlock};
  const int parts = p.parts();
  int64_t prepared = -1, row0 = 0, row1 = 0;
  Runs runs{};
  for (int64_t piece = begin; piece < end; piece++) {
    const int group = int(piece / parts % p.groups), part = int(piece % parts);
    if (prepared != piece / parts) {
      prepared = piece / parts;
      row0 = p.strip_begin(prepared / p.groups), row1 = p.strip_begin(prepared / p.groups + 1);
      runs = sort_tiles(p, row0, row1, a.places);
      transform_inputs<m>(p, source, group, row0, row1, a.places, a.pixels, a.lines, a.inputs);
    }
    const int tiles = int(row1 - row0) * p.tile_columns();
    // This piece's panels, and all of this thread's for the strip
    const int panels = least((part + 1) * p.panels_per_part, p.panels()),
              own = int(least((part + (end - piece)) * p.panels_per_part, int64_t(p.panels())));
    for (int panel = part * p.panels_per_part; panel < panels; panel++) {
      const int k0 = panel * kPanel, vectors = p.width - k0 > kWidth ? kTileVectors : 1;
      for (int c = 0; c < p.depth; c += p.depth_block) {
        const int channels = least(p.depth_block, p.depth - c);
        Stack block = a.filters;
        Ahead ahead;
        if (filters) {
          block.at = const_cast<float*>(filters) + (int64_t(group) * p.panels() + panel) * p.points() * block.stride;
        } else {
          transform_filters<m>(p, w, group, panel, c, c + channels, a.taps, block);
          const bool last = c + channels == p.depth;
          const int next = last ? 0 : c + channels;
          if (panel + last < own)
            look_ahead(p, filters_at(p, w, group, panel + last, next), panel + last,
                       least(p.depth_block, p.depth - next), p.points() * ((channels + kChannels - 1) / kChannels),
                       ahead);
        }
        multiply_all<m>(runs, a.inputs, tiles, c, channels, block, vectors, a.sums, ahead);
      }
      for (int k = k0; k < least(k0 + kPanel, p.width); k += kBlock) {
        const int channels = least(p.width - k, kBlock);
        const int64_t channel = int64_t(group) * p.width + k;
        for (int64_t row = row0; row < row1;) {
          const Segment s = segment_of(p, row, row1);
          Watch watch;
          float* const to =
              finish ? nullptr : target + s.image * p.target.n + channel * p.target.c + s.row0 * m * p.target.h;
          put_segment<m>(p, s, a.sums.at + k - k0, a.sums.stride, a.places + (row - row0) * p.tile_columns(),
                         bias ? bias + channel : nullptr, to, channels, a.pixels, watch);
          if (watch.unfinite())
            define_outputs(p, s, source, w, bias, group, k, channels, to ? to : a.pixels, to ? p.target : in_panel);
          if (finish)
            finish_panel<float, float>(*finish, a.pixels, kBlock, s.row0 * m,
                                       least(s.row1 * m, p.target_rows) - s.row0 * m, p.target_columns, int(s.image),
                                       channel, channels, finished);
          row += s.row1 - s.row0;
        }
      }
    }
  }
}

void filters_any(const Tiling& p, const float* w, float* filters, int64_t begin, int64_t end, char* scratch) {
  (p.m == 2 ? filters_of_panels<2> : filters_of_panels<4>)(p, w, filters, begin, end, scratch);
}

void convolve_any(const Tiling& p, const float* source, const float* w, const float* filters, const float* bias,
                  float* target, const Finish* finish, int64_t begin, int64_t end, char* scratch) {
  (p.m == 2 ? convolve<2> : convolve<4>)(p, source, w, filters, bias, target, finish, begin, end, scratch);
}

}  // namespace convlab::CONVLAB_ISA::winograd

namespace convlab::CONVLAB_ISA {

constinit const decltype(kernels::winograd_filters)::Functions winograd_filters_kernel =
    untyped_of<winograd::filters_any>(kernels::winograd_filters);
constinit const decltype(kernels::winograd_run)::Functions winograd_run_kernel =
    untyped_of<winograd::convolve_any>(kernels::winograd_run);

}  // namespace convlab::CONVLAB_ISA
