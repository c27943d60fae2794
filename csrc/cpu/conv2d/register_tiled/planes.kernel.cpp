// Forward and dgrad where no two taps meet an element, over planes, register tiled: filters of 1 x 1, and those that are as
// large as their stride, 2 x 2, which take planes apart. The pixels of an image are the lanes, so nothing is transposed.
// What are pixels in register_tiled.kernel.cpp are the target's channels here, or each of their taps: a tile of them times
// vectors of pixels lives in registers, and every step multiplies a few weights, broadcast, with vectors of a plane.
//
// What it does    A block of pixels of so many planes as fill half of an L1 is copied to a panel, because lines a plane
//                 apart may share few sets of the L1, and all channels of the target meet it before the next planes'.
//                 Where a panel holds all planes, four blocks meet some channels in turns, so that a page of the target is
//                 written a kilobyte at a time. Tiles ask for the next blocks. Planes are taken apart on the way into the
//                 panel, and in dgrad those of the taps are woven together on the way out of another.
// Against transposing planes  the source is copied and not turned, and the target is written where it belongs.
// What bounds it  multiply-adds from about 128 channels of the target on; with few, the panel is most of the work, and
//                 `direct` reads planes where they lie.
#include "cpu/conv2d/register_tiled/planes.h"
#include "cpu/conv2d/block/ending.h"
#include "cpu/conv2d/register_tiled/planes_apart.h"
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
  const int width = blocks.tile_vectors * L, taps = p.target.taps();
  const bool weaves = p.target.apart(), in_panel = finish || weaves;
  for (int i = 0; i < p.rows; i++)
    bench.rows[i] = {p.packed ? int64_t(i / L) * p.depth * L + i % L : i * p.row,
                     in_panel ? int64_t(i) * width : i * p.pixels};
  Term term{0, 0, p.depth};
  Panel<A> panel{
      .terms = &term, .step = p.packed ? L : 1, .pixels = bench.rows, .bias_of_pixels = true, .ending = p.ending};
  const int channels_of_source = p.depth / p.source.taps(), channels_of_target = p.rows / taps;
  const int64_t planes_of_source = channels_of_source * p.source.plane,
                planes_of_target = channels_of_target * p.target.plane;
  const auto first_block = [&](int64_t piece) { return int(piece / p.parts % blocks.pieces) * blocks.together; };
  const auto runs_of = [&](int b) { return bench.runs + b * width; };  // of blocks together
  const auto lanes_from = [&](int block, int count) {  // of so many blocks
    const int64_t left = p.pixels - int64_t(block) * width, most = int64_t(count) * width;
    return int(left < most ? left : most);
  };
  for (int64_t piece = begin; piece < end; piece++) {
    const int64_t planes = piece / p.parts / blocks.pieces;  // of all images; an image and group
    const int group = int(planes % p.groups), part = int(piece % p.parts), block = first_block(piece);
    const int together = blocks.count - block < blocks.together ? blocks.count - block : blocks.together;
    const int first = int(int64_t(channels_of_target) * part / p.parts) * taps,
              last = int(int64_t(channels_of_target) * (part + 1) / p.parts) * taps;
    const int rows_in_turns = together > 1 || weaves ? kRowsInTurns : last - first;
    const int chunks = (p.depth + blocks.depth_at_once - 1) / blocks.depth_at_once;
    panel.bias = bias + group * channels_of_target;
    if (weaves) {
      for (int i = first; i < last; i += taps)
        for (int tap = 0; tap < taps; tap++) bench.bias[i + tap] = panel.bias[i / taps];
      panel.bias = bench.bias;
    }
    const Run* ends[kBlocksTogether];
    for (int b = 0; b < together && (weaves || p.source.apart()); b++)
      ends[b] = find_runs(p, int64_t(block + b) * width, lanes_from(block + b, 1), runs_of(b));
    Ahead ahead;
    if (piece + 1 < end && part + 1 == p.parts) {
      const int coming = first_block(piece + 1);
      const auto [at, count] = reached(p, int64_t(coming) * width, lanes_from(coming, blocks.together));
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
        const int lanes = lanes_from(block + b, 1);
        A* const to = bench.source + b * blocks.panel();
        if (p.source.apart()) take_apart(from, p.source, runs_of(b), ends[b], lanes, term.count, to);
        else copy_planes(from + int64_t(block + b) * width, p.pixels, term.count, lanes, to);
      }
      for (int row = first; row < last; row += rows_in_turns)
        for (int b = 0; b < together; b++) {
          const int rows = last - row < rows_in_turns ? last - row : rows_in_turns;
          const Segment segment{0, 1, p.depth, 1, row, rows, rows, Reads::apart};
          const int64_t image = planes * planes_of_target, to = image + int64_t(block + b) * width;
          panel.lanes = lanes_from(block + b, 1), panel.vectors = (panel.lanes + L - 1) / L;
          panel.target = in_panel ? bench.target : target + to;
          panel.weights = bench.source + b * blocks.panel();
          A* const woven = target + image + row / taps * p.target.plane;
          const bool weaves_now = weaves && i + 1 == chunks;
          if (weaves_now) ask_for_woven(p.target, runs_of(b), ends[b], rows / taps, woven);
          tiles<A>(panel, segment, ahead, c == 0, i + 1 == chunks);
          if (weaves_now) weave(bench.target + row * width, width, p.target, runs_of(b), ends[b], rows / taps, woven);
          if (finish && i + 1 == chunks)
            finish_rows(*finish, bench.target + row * width, width, rows, panel.lanes, to + row * finish->to.c);
        }
    }
  }
}

}  // namespace convlab::CONVLAB_ISA::register_tiled

CONVLAB_DEFINE_FOR(register_tiled_planes, register_tiled::run_planes<float>, register_tiled::run_planes<double>)
