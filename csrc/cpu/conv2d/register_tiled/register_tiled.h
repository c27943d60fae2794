// What `register_tiled` asks of its kernels. Torch-free, and for kernels as well.
#pragma once
#include "cpu/conv2d/block/finish.h"
#include "cpu/conv2d/product.h"
#include "cpu/stub.h"

namespace convlab {
namespace register_tiled {

// wgrad of filters that cut x into patches: a patch is one pixel of 1 x 1 filters, its elements the channels, in dw's order:
// [count 0, count 1, count 2], so far apart in x
struct Patches {
  int count[3] = {};
  int64_t step[3] = {};

  CONVLAB_INLINE bool any() const { return count[0] > 0; }
};

struct TiledProduct {
  Product product;
  Filters filters;
  Axis vertical, horizontal;
  bool wide = false;  // tiles of as many vectors as pay: in forward and dgrad, where these are enough pieces
  int panels_per_piece = 1;  // register tiles of channels
  int parts_at_once = 1;  // of one slice: pieces of wgrad that a thread makes together
  int slices = 1;  // of wgrad's strips
  int panels_kept = 1;  // whose sums a thread has where there is one slice: one after another of one strip's
  Patches patches{};  // wgrad, if x is cut into such
  bool source_in_tiles = false;  // wgrad: a panel of x has a tile's channels side by side, and tiles one behind another
  bool grad_in_place = false;  // wgrad: dy is read where it lies
  bool in_planes = false;  // the source's planes are read where they lie
  bool slides = false;  // in forward and dgrad, where planes are read or copied: pixels of a row share what they read
  int window = 0;  // elements of the windows that a block's ending makes of the target; 0: none, the target is written
  Ending ending{};  // an activation that tiles make of their sums, if there is one
  bool packs_weights = false;  // a piece packs the weights of its channels, which no other meets
};

// Of the sums: channels of the source that lie at equal steps, as their weights do, one vector behind another; or, where
// pixels slide, neighbouring taps of one channel
struct Term {
  int source;  // from the pixel's base, in elements
  int weights, count;  // the first one's row of a vector; channels or taps
};

// How a tile reads its pixels' source elements: each pixel has its address; or they are side by side, and one address
// serves all; or the next tap's are one further as well, and an element that is read serves several taps. Of planes they
// are weights of rows, each with its address and bias; or two of each, for the even and the odd lanes
enum class Reads { apart, side_by_side, sliding, weights, pairs_of_weights };

// Sliding takes registers, for taps beside sums: sixteen are too few
CONVLAB_INLINE constexpr bool slides(const InstructionSet& set) { return set.vector_bytes > 32; }

struct Pixel {
  int64_t source, target;  // offsets in elements
};

struct Landing {  // of a vector, where weights are read in pairs
  int64_t at;
  int count;  // lanes that go there; the others go a gap further
};

struct Segment {  // the pixels of one class
  int64_t term, term_count, products;  // of a pixel and a channel
  int terms_in_chunk;  // so many are met at once
  int64_t pixel, pixel_count;
  int64_t run;  // so many belong together: all of them, or, if one address serves them, those of a row
  Reads reads;
};

struct Pair {  // the first pixel of a row of dy and the element of x that the tap meets there; offsets in elements
  int x, dy;
};

// `all` in parts of at most `most`, and nearly equally many: a part
CONVLAB_INLINE int even_share(int all, int most) {
  const int parts = all > most ? (all + most - 1) / most : 1;
  return (all + parts - 1) / parts;
}

// Vectors of a wide tile: nearly equally many, and no vector by itself where two by two leave none
CONVLAB_INLINE int wide_share(int vectors, int most) {
  const int share = even_share(vectors, most);
  return vectors % share == 1 && vectors % 2 == 0 ? 2 : share;
}

// A tile adds up so many products at once: their weights fill at most half of an L1, and sums of floats lose a bit of
// accuracy with every doubling of their length.
CONVLAB_INLINE constexpr int terms_at_once(int vectors) { return vectors <= 2 ? 256 : 512 / vectors; }

// How an instruction set cuts the channels that a group writes
struct Channels {
  int lanes, vectors, tile_vectors, panels;  // of a vector; in all; of a register tile; and such tiles
  int tile_pixels;  // or channels of x, of wgrad's tiles
  // Products of a sum in a chunk of terms, and channels of a tap in a term: as wide tiles have them, also in narrow ones,
  // so that a sum has the same order in one image and in many
  int products_in_chunk, depth_at_once;

  CONVLAB_INLINE Channels(const TiledProduct& t, const InstructionSet& set, int lanes)
      : lanes(lanes),
        vectors((t.product.width + lanes - 1) / lanes),
        tile_vectors(t.wide ? wide_share(vectors, set.most_vectors) : set.tile_vectors),
        panels((vectors + tile_vectors - 1) / tile_vectors),
        tile_pixels(set.tile_pixels),
        products_in_chunk(terms_at_once(wide_share(vectors, set.most_vectors))),
        depth_at_once(even_share(t.product.depth, products_in_chunk)) {}
  CONVLAB_INLINE int parts(const TiledProduct& t) const {
    return (panels + t.panels_per_piece - 1) / t.panels_per_piece;
  }
};

// Elements of a vector of channels' weights
CONVLAB_INLINE int64_t weights_of_vector(const TiledProduct& t, const Channels& c) {
  return int64_t(t.filters.R) * t.filters.S * t.filters.depth * c.lanes;
}

CONVLAB_INLINE int64_t pixels_of_strip(const Product& p) {
  return int64_t(p.images_per_strip) * p.rows_per_strip * p.columns.target;
}

// The source's channels are read where they lie: they lie innermost, or the planes are read
CONVLAB_INLINE bool source_in_place(const TiledProduct& t) {
  return t.product.same_type && (t.in_planes || (t.product.source.c == 1 && !t.slides));
}

CONVLAB_INLINE int64_t source_pixels(const Product& p) {
  return int64_t(p.images_per_strip) * p.rows.source * p.columns.source;
}

// Elements from plane to plane in a panel: an odd number of sixteens, lest all channels meet in the same sets of the L1
CONVLAB_INLINE int64_t panel_plane(int64_t pixels) { return round_up(pixels, 16) | 16; }

CONVLAB_INLINE int64_t source_of_strip(const TiledProduct& t, const Channels& c) {
  const Product& p = t.product;
  if (source_in_place(t)) return 0;
  return (t.slides ? p.images_per_strip * panel_plane(source_pixels(p) / p.images_per_strip) : source_pixels(p)) *
             p.depth +
         c.lanes;
}

// The memory that a thread works in
template <class A> struct Bench {
  Segment* segments;
  Term* terms;
  Pixel* pixels;
  A *target, *weights, *source;  // panels

  template <class Memory> CONVLAB_INLINE Bench(Memory& memory, const TiledProduct& t, const Channels& c) {
    const Product& p = t.product;
    const int64_t count = pixels_of_strip(p);
    memory.take(segments, p.rows.count * p.columns.count);
    const int64_t in_row = (p.depth + c.depth_at_once - 1) / c.depth_at_once, taps = taps_of_classes(p.columns),
                  sliding = t.slides ? p.columns.kernel * (p.depth - in_row) : 0;  // of the class of all taps alone
    memory.take(terms, taps_of_classes(p.rows) * (taps * in_row + sliding));
    memory.take(pixels, count);
    memory.take(target, p.same_type && p.target.c == 1 && !t.window ? 0 : count * c.tile_vectors * c.lanes);
    memory.take(weights, t.packs_weights ? c.tile_vectors * weights_of_vector(t, c) : 0);
    memory.take(source, source_of_strip(t, c));
  }
};

// Elements that a block's ending makes of a strip and the channels of a tile
CONVLAB_INLINE int64_t finished_elements(const TiledProduct& t, const Channels& c) {
  return t.window ? pixels_of_strip(t.product) / t.window * c.tile_vectors * c.lanes : 0;
}

// wgrad copies x to tiles of channels where it has so many, because lines a pixel apart may share few sets of the L1: so many
// pixels at once
constexpr int kManyChannels = 24, kPixelsTogether = 4;

// Elements of a tile of channels; vectors may be written past its end
CONVLAB_INLINE int64_t tile_elements(int64_t pixels, int channels, int lanes) { return pixels * channels + lanes; }

template <class A> struct WgradBench {
  Pair* pairs;
  A *dy, *sums, *x, *patches;

  template <class Memory> CONVLAB_INLINE WgradBench(Memory& memory, const TiledProduct& t, const Channels& c) {
    const int64_t pixels = pixels_of_strip(t.product);
    memory.take(pairs, pixels);
    memory.take(dy, t.grad_in_place ? 0 : pixels * c.tile_vectors * c.lanes);
    memory.take(sums, t.slices == 1 ? int64_t(t.panels_kept) * c.tile_vectors * weights_of_vector(t, c) : 0);
    const int64_t tiles = (t.product.depth + c.tile_pixels - 1) / c.tile_pixels,
                  tile = tile_elements(source_pixels(t.product), c.tile_pixels, c.lanes);
    memory.take(x, t.source_in_tiles ? tiles * tile : source_of_strip(t, c));
    memory.take(patches, t.patches.any() ? int64_t(kPixelsTogether) * t.product.depth + c.lanes : 0);
  }
};

}  // namespace register_tiled

// weights: packed, or null where each piece packs them from w; finish: or null, and then the target is written
CONVLAB_KERNEL(register_tiled,
               void(const register_tiled::TiledProduct&, const void* source, const void* w, const void* weights,
                    const void* bias, void* target, const Finish* finish, int64_t begin, int64_t end, char* scratch));
// sums: of slices [slices, groups, vectors, R S, depth, lanes], or null where dw is written at once
CONVLAB_KERNEL(register_tiled_wgrad, void(const register_tiled::TiledProduct&, const void* dy, const void* x, void* dw,
                                          void* sums, int64_t begin, int64_t end, char* scratch));

}  // namespace convlab
