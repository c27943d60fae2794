// Forward and dgrad of 1 x 1 filters over planes, register tiled: the pixels of an image are the lanes, so nothing is
// transposed. What are pixels in register_tiled.kernel.cpp are the target's channels here: a tile of them times vectors
// of pixels lives in registers, and every step multiplies a few weights, broadcast, with vectors of a plane.
//
// What it does    A block of pixels of so many planes as fill half of an L1 is copied to a panel, because lines a plane
//                 apart may share few sets of the L1, and all channels of the target meet it before the next planes'.
//                 Tiles ask for the next block.
// Against transposing planes  the source is copied and not turned, and the target is written where it belongs.
// What bounds it  multiply-adds from about 128 channels of the target on; with few, the panel is most of the work, and
//                 `direct` reads planes where they lie.
#include "cpu/conv2d/register_tiled/planes.h"
#include "cpu/conv2d/block/ending.h"
#include "cpu/conv2d/register_tiled/tile.h"

namespace convlab::CONVLAB_ISA::register_tiled {

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
  const auto first_pixel = [&](int64_t block) { return block % blocks.count * width; };
  const auto lanes_of = [&](int64_t block) {
    const int64_t left = p.pixels - first_pixel(block);
    return int(left < width ? left : width);
  };
  const auto source_of = [&](int64_t block) {
    return source + block / blocks.count * p.depth * p.pixels + first_pixel(block);
  };
  for (int64_t piece = begin; piece < end; piece++) {
    const int64_t block = piece / p.parts, planes = block / blocks.count;  // of all images; an image and group
    const int group = int(planes % p.groups), part = int(piece % p.parts);
    const int64_t row = int64_t(p.rows) * part / p.parts, rows = int64_t(p.rows) * (part + 1) / p.parts - row;
    const Segment segment{0, 1, p.depth, row, rows, rows, false};
    panel.lanes = lanes_of(block), panel.vectors = (panel.lanes + L - 1) / L;
    panel.bias = bias + group * p.rows;
    const int64_t to = planes * p.rows * p.pixels + first_pixel(block);
    panel.target = finish ? bench.target : target + to;
    const int chunks = (p.depth + blocks.depth_at_once - 1) / blocks.depth_at_once;
    Ahead ahead;
    if (piece + 1 < end && part + 1 == p.parts)
      ahead.share(source_of(block + 1), lanes_of(block + 1) * int64_t(sizeof(A)),
                  int64_t(chunks) * TilesOf(int(rows), most_pixels(panel.vectors)).count, p.depth,
                  p.pixels * int64_t(sizeof(A)));
    for (int i = 0, c = 0; i < chunks; i++, c += term.channels) {
      term.channels = p.depth - c < blocks.depth_at_once ? p.depth - c : blocks.depth_at_once;
      copy_planes(source_of(block) + c * p.pixels, p.pixels, term.channels, panel.lanes, bench.source);
      panel.weights = bench.source, panel.vector_stride = int64_t(term.channels) * L;
      panel.source = weights + group * p.group + c * panel.step;
      tiles<A>(panel, segment, ahead, c == 0);
    }
    if (finish)
      finish_rows(*finish, bench.target + row * width, width, int(rows), panel.lanes, to + row * finish->to.c);
  }
}

}  // namespace convlab::CONVLAB_ISA::register_tiled

CONVLAB_DEFINE_FOR(register_tiled_planes, register_tiled::run_planes<float>, register_tiled::run_planes<double>)
