// What `register_tiled` asks of its kernel of planes. Torch-free, and for kernels as well.
#pragma once
#include "cpu/conv2d/register_tiled/register_tiled.h"

namespace convlab {
namespace register_tiled {

// How the product's planes lie in a tensor's: R x S of them in each, which are taps of a filter. Pixel (i, j) of tap (r, s)
// is at row i `rows` + r, column j `columns` + s; where both are 1, a plane is one run of pixels.
struct Apart {
  int R = 1, S = 1, rows = 1, columns = 1;
  int64_t row, plane;  // of the tensor, in elements

  CONVLAB_INLINE int taps() const { return R * S; }
  CONVLAB_INLINE int64_t gap() const { return (rows - 1) * row; }  // between a row of taps and the next pixels'
  CONVLAB_INLINE bool apart() const { return rows * columns > 1; }
};

// target [images, groups, rows, pixels] = weights [groups, rows, depth] times source [images, groups, depth, pixels], where
// rows are channels of the target, or the taps of one after those of another, and depth likewise of the source
struct PlanesProduct {
  int64_t images, pixels;
  int groups, rows, depth;
  int64_t group, row;  // the weights' strides, in elements; those of a row lie side by side
  bool packed;  // or else: weights [groups, vectors of rows, depth, L]
  int Q;  // pixels of a row of an image
  Apart source, target;
  int parts = 1;  // of the rows, where there are few blocks of pixels
  Ending ending{};  // an activation that tiles make of their sums, if there is one

  // Where the target's planes lie apart, the two taps of a row are lanes of a pixel, and one row for tiles.
  CONVLAB_INLINE bool pairs() const { return target.apart(); }
  CONVLAB_INLINE int tile_rows() const { return rows / target.S; }
};

// Pixels of a row of an image
struct Run {
  int lane, count;  // in a block
  int64_t at;  // where the first one's first tap is in a plane that lies apart
};

constexpr int kBlocksTogether = 4;
constexpr int kPairsAtOnce = 256;  // source channels: more than the L1 has room for, but the target is met less often

// How an instruction set cuts the pixels of an image: into blocks of a few vectors, which are a piece of work together where
// a panel holds all planes of each
struct Blocks {
  int lanes, vectors, tile_vectors, count, depth_at_once, together, pieces;

  CONVLAB_INLINE Blocks(const PlanesProduct& p, const InstructionSet& set, int lanes)
      : lanes(lanes),
        vectors(int((p.pixels * p.target.S + lanes - 1) / lanes)),
        tile_vectors(wide_share(vectors, set.most_vectors)),
        count((vectors + tile_vectors - 1) / tile_vectors),
        depth_at_once(even_share(p.depth / p.source.taps(), channels_at_once(p)) * p.source.taps()),
        together(depth_at_once < p.depth ? 1 : even_share(count, kBlocksTogether)),
        pieces((count + together - 1) / together) {}
  CONVLAB_INLINE int channels_at_once(const PlanesProduct& p) const {  // at most, of the source
    const int channels = (p.pairs() ? kPairsAtOnce : terms_at_once(tile_vectors)) / p.source.taps();
    return channels ? channels : 1;
  }
  CONVLAB_INLINE int64_t panel() const { return int64_t(tile_vectors) * depth_at_once * lanes; }
};

template <class A> struct PlanesBench {
  Pixel* rows;
  A* bias;  // of the rows, where a channel has several
  Run* runs;  // of blocks together
  Landing* landings;  // of their vectors
  A *source, *target;  // panels [blocks together, vectors, depth at once, L], [rows, pixels of a block]

  template <class Memory>
  CONVLAB_INLINE PlanesBench(Memory& memory, const PlanesProduct& p, const Blocks& b, bool finishes) {
    memory.take(rows, p.tile_rows());
    memory.take(bias, p.pairs() ? p.tile_rows() : 0);
    memory.take(runs, p.source.apart() ? b.together * b.tile_vectors * b.lanes : 0);
    memory.take(landings, p.pairs() ? b.together * b.tile_vectors : 0);
    memory.take(source, b.together * b.panel());
    memory.take(target, finishes ? int64_t(p.rows) * b.tile_vectors * b.lanes : 0);
  }
};

}  // namespace register_tiled

// The pieces [begin, end): images x groups x blocks of pixels, some together x parts of the rows. bias [groups, channels];
// finish: an activation, or null, and then the target is written
CONVLAB_KERNEL(register_tiled_planes,
               void(const register_tiled::PlanesProduct&, const void* source, const void* weights, const void* bias,
                    void* target, const Finish* finish, int64_t begin, int64_t end, char* scratch));

}  // namespace convlab
