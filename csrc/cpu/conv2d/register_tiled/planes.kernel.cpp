// Forward and dgrad where no two taps meet an element, over planes, register tiled: filters of 1 x 1, and those that are
// as large as their stride, 2 x 2 say, which take planes apart. The pixels of an image are the lanes, so nothing is transposed.
// What are pixels in register_tiled.kernel.cpp are the target's channels here, or each of their rows of taps: a tile of
// them times vectors of pixels lives in registers, and every step multiplies a few weights, broadcast, with vectors of a
// plane.
//
// What it does    A block of pixels of so many planes as fill half of an L1 (of pairs, more) is copied to a panel, because
//                 lines a plane apart may share few sets of the L1, and all channels of the target meet it before the next
//                 planes'. Where a panel holds all planes, four blocks meet some channels in turns, so that a page of the
//                 target is written a kilobyte at a time. Tiles ask for the next blocks. Planes are taken apart on the way
//                 into the panel. In dgrad the two taps of a row are lanes: each pixel is in the panel twice, weights are
//                 broadcast in pairs, and the target is written as it lies.
// Against transposing planes  the source is copied and not turned, and the target is written where it belongs.
// What bounds it  multiply-adds from about 128 channels of the target on; with few, the panel is most of the work, and
//                 `direct` reads planes where they lie.
#include "cpu/conv2d/register_tiled/planes.h"
#include "cpu/conv2d/block/ending.h"
#include "cpu/conv2d/register_tiled/planes_apart.h"
#include "cpu/conv2d/register_tiled/tile.h"

namespace convlab::CONVLAB_ISA::register_tiled {

constexpr int kRowsInTurns = 24;  // a block's panel comes from the L2 for so many: four tiles

// `pixels` of `depth` planes, `plane` apart -> [vectors, depth, L]; S = 2: each of them twice
template <int S, class A> void copy_planes(const A* planes, int64_t plane, int depth, int pixels, A* panel) {
  constexpr int L = kLanes<A>;
  for (int c = 0; c < depth; c++, planes += plane, panel += L) {
    A* to = panel;
    for (int i = 0; i < pixels; i += L, to += int64_t(S) * depth * L) {
      const Vec<A> some = load_some<A>(planes + i, pixels - i);
      store<A>(to, S == 2 ? zip<A, 0>(some, some) : some);
      if (S == 2 && pixels - i > L / 2) store<A>(to + int64_t(depth) * L, zip<A, 1>(some, some));
    }
  }
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
  const int width = blocks.tile_vectors * L, R = p.target.R, S = p.target.S;  // a block's lanes; a pixel has S
  const bool pairs = p.pairs();
  for (int i = 0; i < p.tile_rows(); i++)
    bench.rows[i] = {p.packed ? int64_t(i * S / L) * p.depth * L + i * S % L : i * p.row,
                     finish ? int64_t(i) * width : i / R * p.target.plane + i % R * p.target.row};
  Term term{0, 0, p.depth};
  Panel<A> panel{
      .terms = &term, .step = p.packed ? L : 1, .pixels = bench.rows, .gap = p.target.gap(), .ending = p.ending};
  const int channels_of_source = p.depth / p.source.taps(), channels_of_target = p.tile_rows() / R;
  const int64_t planes_of_source = channels_of_source * p.source.plane,
                planes_of_target = channels_of_target * p.target.plane;
  const auto first_block = [&](int64_t piece) { return int(piece / p.parts % blocks.pieces) * blocks.together; };
  const auto runs_of = [&](int b) { return bench.runs + b * width; };  // of blocks together
  const auto lanes_from = [&](int block, int count) {  // of so many blocks
    const int64_t left = p.pixels * S - int64_t(block) * width, most = int64_t(count) * width;
    return int(left < most ? left : most);
  };
  const auto pixel_of = [&](int block) { return int64_t(block) * (width / S); };
  for (int64_t piece = begin; piece < end; piece++) {
    const int64_t planes = piece / p.parts / blocks.pieces;  // of all images; an image and group
    const int group = int(planes % p.groups), part = int(piece % p.parts), block = first_block(piece);
    const int together = blocks.count - block < blocks.together ? blocks.count - block : blocks.together;
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
    const Run* ends[kBlocksTogether];
    for (int b = 0; b < together && p.source.apart(); b++)
      ends[b] = find_runs(p, pixel_of(block + b), lanes_from(block + b, 1), runs_of(b));
    Ahead ahead;
    if (piece + 1 < end && part + 1 == p.parts) {
      const int coming = first_block(piece + 1);
      const auto [at, count] = reached(p, pixel_of(coming), lanes_from(coming, blocks.together) / S);
      ahead.share(source + (piece + 1) / p.parts / blocks.pieces * planes_of_source + at, count * int64_t(sizeof(A)),
                  int64_t(chunks) * together * TilesOf(last - first, most_pixels(blocks.tile_vectors)).count,
                  channels_of_source, p.source.plane * int64_t(sizeof(A)));
    }
    for (int i = 0, c = 0; i < chunks; i++, c += term.count) {
      term.count = p.depth - c < blocks.depth_at_once ? p.depth - c : blocks.depth_at_once;
      panel.vector_stride = int64_t(term.count) * L;
      panel.source = weights + group * p.group + c * panel.step;
      const A* const from = source + planes * planes_of_source + c / p.source.taps() * p.source.plane;
      for (int b = 0; b < together; b++) {
        const int pixels = lanes_from(block + b, 1) / S;
        A* const to = bench.source + b * blocks.panel();
        if (p.source.apart()) take_apart(from, p.source, runs_of(b), ends[b], pixels, term.count, to);
        else
          (pairs ? &copy_planes<2, A> : &copy_planes<1, A>)(from + pixel_of(block + b), p.pixels, term.count, pixels,
                                                            to);
      }
      for (int row = first; row < last; row += rows_in_turns)
        for (int b = 0; b < together; b++) {
          const int rows = last - row < rows_in_turns ? last - row : rows_in_turns;
          const Segment segment{0, 1, p.depth, 1, row, rows, rows, pairs ? Reads::pairs_of_weights : Reads::weights};
          const int64_t to = planes * planes_of_target + (pairs ? 0 : pixel_of(block + b));
          panel.lanes = lanes_from(block + b, 1), panel.vectors = (panel.lanes + L - 1) / L;
          panel.target = finish ? bench.target : target + to;
          panel.landings = bench.landings + b * blocks.tile_vectors;
          panel.weights = bench.source + b * blocks.panel();
          tiles<A, true>(panel, segment, ahead, c == 0, i + 1 == chunks);
          if (finish && i + 1 == chunks)
            finish_rows(*finish, bench.target + row * width, width, rows, panel.lanes, to + row * finish->to.c);
        }
    }
  }
}

}  // namespace convlab::CONVLAB_ISA::register_tiled

CONVLAB_DEFINE_FOR(register_tiled_planes, register_tiled::run_planes<float>, register_tiled::run_planes<double>)
