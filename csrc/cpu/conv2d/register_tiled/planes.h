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
  // Else the pixels of an image are followed by those of the next, and a block may have some of both.
  CONVLAB_INLINE bool joined() const { return images > 0 && !pairs() && !source.apart(); }
  CONVLAB_INLINE int rows_of_part() const { return (rows + parts - 1) / parts; }
  CONVLAB_INLINE bool tears() const { return joined() && images > 1; }
  CONVLAB_INLINE int64_t images_apart() const { return joined() ? 1 : images; }
  CONVLAB_INLINE int64_t pixels_together() const { return joined() ? images * pixels : pixels; }
  CONVLAB_INLINE int tile_rows() const { return rows / target.S; }
  // Elements of an image's planes, of one group
  CONVLAB_INLINE int64_t planes_of_source() const { return depth / source.taps() * source.plane; }
  CONVLAB_INLINE int64_t planes_of_target() const { return rows / target.taps() * target.plane; }
};

// Pixels of a block that are one run in a plane of the source: of a row of an image, or of an image
struct Run {
  int lane, count;  // in a block
  int64_t at, to;  // from the first plane on: the first one's first tap in the source, and its place in the target
};

constexpr int kBlocksTogether = 4;
constexpr int64_t kPiecesWanted = 16;  // enough to share among a few threads; more where strips are small anyway
constexpr int kRowsOfPart = 128;  // at least: each part copies the block
constexpr int kManyVectors = 32;  // of which one alone does not matter
constexpr int kPairsAtOnce = 256;  // source channels: more than the L1 has room for, but the target is met less often

// How an instruction set cuts pixels, of one image or of all: into blocks of a few vectors, up to `together` of which are a
// piece of work, or fewer where there would be too few pieces for threads, in all parts that rows can have
struct Blocks {
  int lanes, vectors, tile_vectors, count, depth_at_once, pieces, together;

  CONVLAB_INLINE Blocks(const PlanesProduct& p, const InstructionSet& set, int lanes)
      : lanes(lanes),
        vectors(vectors_of(p, p.pixels_together())),
        tile_vectors(vectors > kManyVectors ? set.most_vectors : wide_share(vectors, set.most_vectors)),
        count((vectors + tile_vectors - 1) / tile_vectors),
        depth_at_once(even_share(p.depth / p.source.taps(), channels_at_once(p, set)) * p.source.taps()),
        pieces(pieces_of(p)),
        together((count + pieces - 1) / pieces) {}
  CONVLAB_INLINE int first(int piece) const { return int(int64_t(count) * piece / pieces); }
  CONVLAB_INLINE int pieces_of(const PlanesProduct& p) const {
    const int64_t parts = p.rows > kRowsOfPart ? p.rows / kRowsOfPart : 1, others = p.images_apart() * p.groups * parts,
                  wanted = others ? kPiecesWanted / others : 1,
                  fewest = (count + kBlocksTogether - 1) / kBlocksTogether;
    return int(wanted < fewest ? fewest : wanted < count ? wanted : count);
  }
  CONVLAB_INLINE int vectors_of(const PlanesProduct& p, int64_t pixels) const {
    return int((pixels * p.target.S + lanes - 1) / lanes);
  }
  // At most, of the source; as one image has them, so that a sum has the same order in one and in many
  CONVLAB_INLINE int channels_at_once(const PlanesProduct& p, const InstructionSet& set) const {
    const int terms = terms_at_once(wide_share(vectors_of(p, p.pixels), set.most_vectors)),
              channels = (p.pairs() ? kPairsAtOnce : terms) / p.source.taps();
    return channels ? channels : 1;
  }
  CONVLAB_INLINE int width() const { return tile_vectors * lanes; }  // of a block
  CONVLAB_INLINE int64_t panel() const { return int64_t(width()) * depth_at_once; }
};

template <class A> struct PlanesBench {
  Pixel *rows, *in_panel;  // of the target, and of its panel
  A* bias;  // of the rows, where a channel has several
  Run* runs;  // of blocks together
  Landing* landings;  // of their vectors
  A* source;  // panels [blocks together, depth at once, pixels of a block]
  A* target;  // of blocks that have pixels of several images: [blocks together, rows of a part, pixels of a block]

  template <class Memory> CONVLAB_INLINE PlanesBench(Memory& memory, const PlanesProduct& p, const Blocks& b) {
    memory.take(rows, p.tile_rows()), memory.take(in_panel, p.tears() ? p.rows : 0);
    memory.take(bias, p.pairs() ? p.tile_rows() : 0);
    memory.take(runs, b.together * b.width());
    memory.take(landings, p.pairs() ? b.together * b.tile_vectors : 0);
    memory.take(source, b.together * b.panel() + b.lanes);
    memory.take(target, p.tears() ? int64_t(b.together) * p.rows_of_part() * b.width() : 0);
  }
};

}  // namespace register_tiled

// The pieces [begin, end): images x groups x blocks of pixels, some together x parts of the rows. bias [groups, channels];
// finish: an activation, or null, and then the target is written
CONVLAB_KERNEL(register_tiled_planes,
               void(const register_tiled::PlanesProduct&, const void* source, const void* weights, const void* bias,
                    void* target, const Finish* finish, int64_t begin, int64_t end, char* scratch));

}  // namespace convlab
