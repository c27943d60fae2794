// Forward and dgrad where no two taps meet an element, over planes, register tiled: filters of 1 x 1, and those that are
// as large as their stride, 2 x 2 say, which take planes apart. Pixels are the lanes, so nothing is transposed.
// What are pixels in register_tiled.kernel.cpp are the target's channels here, or each of their rows of taps: a tile of
// them times vectors of pixels lives in registers, and every step multiplies a few weights, broadcast, with vectors of a
// plane.
//
// What it does    A block of pixels of so many planes as fill half of an L1 (of pairs, more) is copied to a panel, because
//                 lines a plane apart may share few sets of the L1, and all channels of the target meet it before the next
//                 planes'. Four blocks meet some channels in turns, so that weights come from far away once for them, and a
//                 page of the target is written a kilobyte at a time. Tiles ask for the next blocks. Images follow one
//                 another: a block with pixels of several has its target in a panel first, and 49 pixels of each of eight
//                 images fill 49 vectors of eight, not 56. Planes are taken apart on the way into the panel. In dgrad the
//                 two taps of a row are lanes: each pixel is in the panel twice, weights are broadcast in pairs, and the
//                 target is written as it lies.
// Against transposing planes  the source is copied and not turned, and the target is written where it belongs.
// What bounds it  multiply-adds from about 128 channels of the target on; with few, the panel is most of the work, and
//                 `direct` reads planes where they lie.
#include "cpu/conv2d/register_tiled/planes.h"
#include "cpu/conv2d/block/ending.h"
#include "cpu/conv2d/register_tiled/planes_apart.h"
#include "cpu/conv2d/register_tiled/tile.h"

namespace convlab::CONVLAB_ISA::register_tiled {

constexpr int kRowsInTurns = 24;  // a block's panel comes from the L2 for so many: four tiles

// Rows of a panel, `width` apart -> [rows], `plane` apart
template <class A> void copy_rows(const A* panel, int width, int rows, int count, A* to, int64_t plane) {
  for (int k = 0; k < rows; k++, panel += width, to += plane) copy_row(panel, count, to);
}

// Sums [rows], `plane` apart, from `at` on in y -> their activations, there and in winners
template <class A> void finish_rows(const Finish& f, A* y, int64_t plane, int rows, int count, int64_t at) {
  with_ending(f.ending, [&]<Activation activation, int kR, int kS>() {
    for (int k = 0; k < rows; k++, at += plane)
      finish_row<A, activation, kR, kS>(f.ending, y + at, 0, count, y + at, f.winners ? f.winners + at : nullptr);
  });
}

template <class A>
void run_planes(const PlanesProduct& p, const A* source, const A* weights, const A* bias, A* target,
                const Finish* finish, int64_t begin, int64_t end, char* scratch) {
  constexpr int L = kLanes<A>;
  if (finish) target = static_cast<A*>(finish->y);
  const Blocks blocks(p, kSet, L);
  Carver carver{scratch};
  const PlanesBench<A> bench(carver, p, blocks);
  const int width = blocks.width(), R = p.target.R, S = p.target.S;  // a block's lanes; a pixel has S
  const bool pairs = p.pairs();
  for (int i = 0; i < p.tile_rows(); i++) {
    const int64_t weights = p.packed ? int64_t(i * S / L) * p.depth * L + i * S % L : i * p.row;
    bench.rows[i] = {weights, i / R * p.target.plane + i % R * p.target.row};
    if (p.tears()) bench.in_panel[i] = {weights, int64_t(i) * width};
  }
  Term term{0, 0, p.depth};
  Panel<A> panel{.terms = &term,
                 .step = p.packed ? L : 1,
                 .pixels = bench.rows,
                 .width = width,
                 .gap = p.target.gap(),
                 .ending = p.ending};
  const int channels_of_target = p.tile_rows() / R;
  struct Together {
    int first, count;
  };
  const auto blocks_of = [&](int64_t piece) {
    const int i = int(piece / p.parts % blocks.pieces), first = blocks.first(i);
    return Together{first, blocks.first(i + 1) - first};
  };
  const auto lanes_from = [&](int block, int count) {  // of so many blocks
    const int64_t left = p.pixels_together() * S - int64_t(block) * width, most = int64_t(count) * width;
    return int(left < most ? left : most);
  };
  const auto pixel_of = [&](int block) { return int64_t(block) * (width / S); };
  for (int64_t piece = begin; piece < end; piece++) {
    const int64_t planes = piece / p.parts / blocks.pieces;  // an image and group, or all images' of a group
    const int group = int(planes % p.groups), part = int(piece % p.parts);
    const auto [block, together] = blocks_of(piece);
    const int first = int(int64_t(channels_of_target) * part / p.parts) * R,
              last = int(int64_t(channels_of_target) * (part + 1) / p.parts) * R;
    const int rows_in_turns = together > 1 ? kRowsInTurns : last - first;
    const int chunks = (p.depth + blocks.depth_at_once - 1) / blocks.depth_at_once;
    panel.bias = bias + group * channels_of_target;
    if (pairs) {
      for (int i = first, k = first / R; i < last; k++)
        for (int r = 0; r < R; r++) bench.bias[i++] = panel.bias[k];
      panel.bias = bench.bias;
      land(p, int64_t(block) * width, lanes_from(block, together), L, bench.landings);
    }
    Ahead ahead;
    if (piece + 1 < end && part + 1 == p.parts) {
      const auto [coming, count] = blocks_of(piece + 1);
      const Run* const end_run = find_runs(p, pixel_of(coming), lanes_from(coming, count) / S, bench.runs);
      look_ahead(p, source + (piece + 1) / p.parts / blocks.pieces * p.planes_of_source(), bench.runs, end_run,
                 int64_t(chunks) * together * TilesOf(last - first, most_pixels(blocks.tile_vectors)).count, ahead);
    }
    const Run *runs[kBlocksTogether], *ends[kBlocksTogether];
    int lanes[kBlocksTogether];
    for (int b = 0; b < together; b++) {
      Run* const own = bench.runs + b * width;
      lanes[b] = lanes_from(block + b, 1);
      runs[b] = own, ends[b] = find_runs(p, pixel_of(block + b), lanes[b] / S, own);
    }
    for (int i = 0, c = 0; i < chunks; i++, c += term.count) {
      term.count = p.depth - c < blocks.depth_at_once ? p.depth - c : blocks.depth_at_once;
      panel.source = weights + group * p.group + c * panel.step;
      const A* const from = source + planes * p.planes_of_source() + c / p.source.taps() * p.source.plane;
      for (int b = 0; b < together; b++) {
        A* const to = bench.source + b * blocks.panel();
        clear_last(lanes[b], term.count, to, width);
        if (p.source.apart()) take_apart(from, p.source, runs[b], ends[b], term.count, to, width);
        else
          (pairs ? &copy_planes<2, A> : &copy_planes<1, A>)(from, p.source.plane, term.count, runs[b], ends[b], to,
                                                            width);
      }
      for (int row = first; row < last; row += rows_in_turns)
        for (int b = 0; b < together; b++) {
          const int rows = last - row < rows_in_turns ? last - row : rows_in_turns;
          const Segment segment{0, 1, p.depth, 1, row, rows, rows, pairs ? Reads::pairs_of_weights : Reads::weights};
          const bool torn = p.tears() && ends[b] - runs[b] > 1;
          const int64_t to = planes * p.planes_of_target();
          A* const panel_of_target = bench.target + (int64_t(b) * p.rows_of_part() - first) * width;
          panel.lanes = lanes[b], panel.vectors = (panel.lanes + L - 1) / L;
          panel.pixels = torn ? bench.in_panel : bench.rows;
          panel.target = torn ? panel_of_target : target + to + (pairs ? 0 : runs[b]->to);
          panel.landings = bench.landings + b * blocks.tile_vectors;
          panel.weights = bench.source + b * blocks.panel();
          tiles<A, true>(panel, segment, ahead, c == 0, i + 1 == chunks);
          if (i + 1 < chunks) continue;
          const int64_t at = to + row * p.target.plane;
          for (const Run* run = runs[b]; run != ends[b] && torn; run++)
            copy_rows(panel_of_target + row * width + run->lane, width, rows, run->count, target + at + run->to,
                      p.target.plane);
          for (const Run* run = runs[b]; run != ends[b] && finish; run++)
            finish_rows(*finish, target, p.target.plane, rows, run->count, at + run->to);
        }
    }
  }
}

}  // namespace convlab::CONVLAB_ISA::register_tiled

CONVLAB_DEFINE_FOR(register_tiled_planes, register_tiled::run_planes<float>, register_tiled::run_planes<double>)
