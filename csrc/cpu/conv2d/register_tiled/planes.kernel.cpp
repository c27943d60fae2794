// Forward and dgrad of 1 x 1 filters over planes, register tiled: the pixels of an image are the lanes, so nothing is
// transposed. What are pixels in register_tiled.kernel.cpp are the target's channels here: a tile of them times vectors
// of pixels lives in registers, and every step multiplies a few weights, broadcast, with vectors of a plane.
//
// What it does    A block of pixels of so many planes as fill half of an L1 is copied to a panel, because lines a plane
//                 apart may share few sets of the L1, and all channels of the target meet it before the next planes'.
//                 Where a panel holds all planes, four blocks meet some channels in turns, so that a page of the target is
//                 written a kilobyte at a time. Tiles ask for the next blocks.
// Against transposing planes  the source is copied and not turned, and the target is written where it belongs.
// What bounds it  multiply-adds from about 128 channels of the target on; with few, the panel is most of the work, and
//                 `direct` reads planes where they lie.
#include "cpu/conv2d/register_tiled/planes.h"
#include "cpu/conv2d/block/ending.h"
#include "cpu/conv2d/register_tiled/tile.h"

namespace convlab::CONVLAB_ISA::register_tiled {

constexpr int kRowsInTurns = 24;  // a block's panel comes from the L2 for so many: four tiles

// `lanes` pixels of `depth` planes, `plane` apart -> [vectors, depth, L]
template <class A> void copy_planes(const A* planes, int64_t plane, int depth, int lanes, A* panel) {
  constexpr int L = kLanes<A>;
  for (int c = 0; c < depth; c++, planes += plane, panel += L)
    for (int v = 0; v * L < lanes; v++)
      store<A>(panel + int64_t(v) * depth * L, load_some<A>(planes + v * L, lanes - v * L));
}

// Rows of a panel, `width` apart -> their activations, in y and winners from `at` on
template <class A> void finish_rows(const Finish& f, const A* panel, int width, int rows, int lanes, int64_t at) {
  with_ending(f.ending, [&]<Activation activation, int kR, int kS>() {
    for (int k = 0; k < rows; k++, at += f.to.c)
      finish_row<A, activation, kR, kS>(f.ending, panel + int64_t(k) * width, 0, lanes, static_cast<A*>(f.y) + at,
                                        f.winners ? f.winners + at : nullptr);
  });
}

template <class A>
void run_planes(const PlanesProduct& p, const A* source, const A* weights, const A* bias, A* target,
                const Finish* finish, int64_t begin, int64_t end, char* scratch) {
  constexpr int L = kLanes<A>;
  const Blocks blocks(p, kSet, L);
  Carver carver{scratch};
  const PlanesBench<A> bench(carver, p, blocks, finish);
  const int width = blocks.tile_vectors * L;
  for (int k = 0; k < p.rows; k++)
    bench.rows[k] = {p.packed ? int64_t(k / L) * p.depth * L + k % L : k * p.row,
                     finish ? int64_t(k) * width : k * p.pixels};
  Term term{0, 0, p.depth};
  Panel<A> panel{
      .terms = &term, .terms_in_chunk = 1, .step = p.packed ? L : 1, .pixels = bench.rows, .bias_of_pixels = true};
  const int64_t planes_of_source = p.depth * p.pixels, planes_of_target = p.rows * p.pixels;
  const auto first_block = [&](int64_t piece) { return int(piece / p.parts % blocks.pieces) * blocks.together; };
  const auto lanes_from = [&](int block, int count) {  // of so many blocks
    const int64_t left = p.pixels - int64_t(block) * width, most = int64_t(count) * width;
    return int(left < most ? left : most);
  };
  for (int64_t piece = begin; piece < end; piece++) {
    const int64_t planes = piece / p.parts / blocks.pieces;  // of all images; an image and group
    const int group = int(planes % p.groups), part = int(piece % p.parts), block = first_block(piece);
    const int together = blocks.count - block < blocks.together ? blocks.count - block : blocks.together;
    const int first = int(int64_t(p.rows) * part / p.parts), last = int(int64_t(p.rows) * (part + 1) / p.parts);
    const int rows_in_turns = together > 1 ? kRowsInTurns : last - first;
    const int chunks = (p.depth + blocks.depth_at_once - 1) / blocks.depth_at_once;
    panel.bias = bias + group * p.rows;
    Ahead ahead;
    if (piece + 1 < end && part + 1 == p.parts) {
      const int64_t next = (piece + 1) / p.parts / blocks.pieces;
      const int coming = first_block(piece + 1);
      ahead.share(source + next * planes_of_source + int64_t(coming) * width,
                  lanes_from(coming, blocks.together) * int64_t(sizeof(A)),
                  int64_t(chunks) * together * TilesOf(last - first, most_pixels(blocks.tile_vectors)).count, p.depth,
                  p.pixels * int64_t(sizeof(A)));
    }
    for (int i = 0, c = 0; i < chunks; i++, c += term.channels) {
      term.channels = p.depth - c < blocks.depth_at_once ? p.depth - c : blocks.depth_at_once;
      panel.vector_stride = int64_t(term.channels) * L;
      panel.source = weights + group * p.group + c * panel.step;
      for (int b = 0; b < together; b++)
        copy_planes(source + planes * planes_of_source + c * p.pixels + int64_t(block + b) * width, p.pixels,
                    term.channels, lanes_from(block + b, 1), bench.source + b * blocks.panel());
      for (int row = first; row < last; row += rows_in_turns)
        for (int b = 0; b < together; b++) {
          const int rows = last - row < rows_in_turns ? last - row : rows_in_turns;
          const Segment segment{0, 1, p.depth, row, rows, rows, false};
          const int64_t to = planes * planes_of_target + int64_t(block + b) * width;
          panel.lanes = lanes_from(block + b, 1), panel.vectors = (panel.lanes + L - 1) / L;
          panel.target = finish ? bench.target : target + to;
          panel.weights = bench.source + b * blocks.panel();
          tiles<A>(panel, segment, ahead, c == 0);
          if (finish && i + 1 == chunks)
            finish_rows(*finish, bench.target + row * width, width, rows, panel.lanes, to + row * finish->to.c);
        }
    }
  }
}

}  // namespace convlab::CONVLAB_ISA::register_tiled

CONVLAB_DEFINE_FOR(register_tiled_planes, register_tiled::run_planes<float>, register_tiled::run_planes<double>)
