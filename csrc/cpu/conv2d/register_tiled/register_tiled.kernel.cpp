// Forward and dgrad, register tiled: a tile of pixels times channels of the target lives in vector registers (tile.h),
// and every step multiplies a few pixels' source elements, broadcast, with vectors of packed weights.
//
// What it does    The source is unrolled by addresses alone. Its channels lie innermost, in memory already
//                 (channels_last) or in a panel of a strip of rows that stays in the L2; where they are few,
//                 planes are read as they lie, and the pixels of a row have one address. A tap is an offset to a
//                 pixel's address, and its channels follow. Pixels come sorted by the taps that reach them, so padding
//                 costs nothing and the loop has no test. The target of a strip is gathered in a panel as well where
//                 its memory has another order, and transposed in registers. Tiles ask for the next strip's source. One
//                 vector of channels slides along rows of planes: an element that is read serves two taps or three.
// Against direct  a vector of weights serves six pixels or twelve, and a broadcast two vectors to four: 10 loads for 24
//                 multiply-adds.
// What bounds it  multiply-adds: both ports busy from about 64 channels on, and where pixels slide. Below 16 target
//                 channels it wastes lanes; `direct` wastes none there.
#include "cpu/conv2d/block/ending.h"
#include "cpu/conv2d/packed_weights.h"
#include "cpu/conv2d/register_tiled/sorted_pixels.h"
#include "cpu/conv2d/register_tiled/tile.h"

namespace convlab::CONVLAB_ISA::register_tiled {

constexpr int64_t kNearBytes = 16 << 10;  // of a group's weights, which then stay in the L1
constexpr int64_t kLargeBytes = 2 << 20;  // of a group's target, which does not stay in the L2
constexpr int64_t kFewTiles = 256;  // of a strip: they ask for part of the next one, lest requests wait for one another

// Panels [first, last) of all pixels of one class, a tile's at once, and the next tile's lines of the target asked for:
// a large target is written line after line. All terms are one chunk. near: the first panel
template <class A>
void all_channels(const Panel<A>& near, const Segment& g, int width, int first, int last, Ahead& ahead) {
  constexpr int L = kLanes<A>;
  const int channels = near.vectors * L;
  const TilesOf all(int(g.run), most_pixels(near.vectors, g.reads));
  const Term* const terms = near.terms + g.term;
  const Chunk chunk{terms, terms + g.term_count, true, true, g.products >= kTermsToPrefetch};
  const int64_t end = g.pixel + g.pixel_count;
  for (int64_t run = g.pixel; run < end; run += g.run)
    for (int i = 0; i < all.count; i++) {
      const int64_t pixel = run + all.first(i), next = pixel + all.size(i);
      const int size = all.size(i), asked = end - next < size ? int(end - next) : size;
      Panel<A> p = near;
      p.weights += first * near.vectors * p.vector_stride, p.bias += first * channels, p.target += first * channels;
      for (int k0 = first * channels; k0 < width && k0 < last * channels; k0 += channels) {
        p.lanes = width - k0 < channels ? width - k0 : channels, p.vectors = (p.lanes + L - 1) / L;
        for (int m = 0; m < asked; m++)
          for (int v = 0; v < p.vectors; v += 2) __builtin_prefetch(p.target + v * L + p.pixels[next + m].target, 1);
        ahead.ask();
        tile_of<A, false>(size, p.vectors, g.reads)(p, chunk, pixel);
        p.weights += near.vectors * p.vector_stride, p.bias += channels, p.target += channels;
      }
    }
}

// The pieces [begin, end): strips x groups x parts of the channels. weights [groups, vectors of width, R, S, depth, L],
// or null to pack them from w, a tile's vectors at a time; bias [groups, vectors of width, L]
template <class T>
void run(const TiledProduct& t, const T* source, const T* w, const acc_t<T>* weights, const acc_t<T>* bias, T* target,
         const Finish* finish, int64_t begin, int64_t end, char* scratch) {
  using A = acc_t<T>;
  constexpr int L = kLanes<A>;
  const Product& p = t.product;
  const Channels channels(t, kSet, L);
  const int vectors = channels.vectors, panels = channels.panels, parts = channels.parts(t),
            width = channels.tile_vectors * L;
  const int64_t vector_stride = weights_of_vector(t, channels), columns = p.columns.target;
  const bool in_memory = sizeof(T) == sizeof(A) && p.target.c == 1 && !finish;
  const bool one_chunk = vector_stride <= int64_t(channels.products_in_chunk) * L;
  const bool near = in_memory && panels > 1 && !t.packs_weights && one_chunk &&
                    vectors * vector_stride * int64_t(sizeof(A)) <= kNearBytes &&
                    int64_t(p.images) * p.rows.target * columns * p.width * int64_t(sizeof(A)) >= kLargeBytes;
  Carver carver{scratch};
  const auto [segments, terms, pixels, out, own_weights, source_panel] = Bench<A>(carver, t, channels);
  const Finished<A> finished(carver, finished_elements(t, channels));

  int64_t prepared = -1;
  const bool whole_images = p.rows_per_strip == p.rows.target;
  int segment_count = 0, images_sorted = 0;
  Lens<A> lens{};
  Strip s{};
  Ahead ahead;
  for (int64_t piece = begin; piece < end; piece++) {
    const int part = int(piece % parts), group = int(piece / parts % p.groups);
    if (prepared != piece / parts) {
      prepared = piece / parts;
      s = strip_of(p, prepared / p.groups);
      lens = look<A>(t, source, s, group, source_panel);
      const bool sorted = segment_count && whole_images && s.n1 - s.n0 == images_sorted;  // for the strip before
      if (!sorted) {
        const Into into = in_memory ? Into{p.target.n, p.target.h, p.target.w}
                                    : Into{(s.row1 - s.row0) * columns * width, columns * width, width};
        segment_count = sort_pixels(t, s, lens, into, channels, segments, terms, pixels);
        images_sorted = s.n1 - s.n0;
      }
      ahead = {};
      if (p.groups == 1 && (prepared + 1) * parts < end) {
        const Strip coming = strip_of(p, prepared + 1);
        int64_t count = 0;
        for (const Segment* g = segments; g < segments + segment_count; g++)
          count += g->pixel_count / g->run * TilesOf(int(g->run), most_pixels(channels.tile_vectors)).count *
                   ((g->term_count + g->terms_in_chunk - 1) / g->terms_in_chunk);
        count *= panels;
        int row, rows;
        rows_reached(p, coming, row, rows);
        look_ahead(p, coming, source, p.source, p.depth, row, rows, count < kFewTiles ? kFewTiles : count, ahead);
      }
    }
    const int first_panel = part * t.panels_per_piece,
              last_panel = first_panel + t.panels_per_piece < panels ? first_panel + t.panels_per_piece : panels;
    Panel<A> panel{.terms = terms,
                   .source = lens.data,
                   .step = lens.c,
                   .pixels = pixels,
                   .vector_stride = vector_stride,
                   .tap_stride = (ascends(p.columns) ? 1 : -1) * int64_t(p.depth) * L,
                   .ending = t.ending};
    if constexpr (sizeof(T) == sizeof(A))
      if (near) {
        const int64_t vector = int64_t(group) * vectors;
        panel.weights = weights + vector * vector_stride, panel.bias = bias + vector * L;
        panel.target = target + s.n0 * p.target.n + s.row0 * p.target.h + int64_t(group) * p.width;
        panel.vectors = channels.tile_vectors;
        for (const Segment* g = segments; g < segments + segment_count; g++)
          all_channels<A>(panel, *g, p.width, first_panel, last_panel, ahead);
        continue;
      }
    for (int i = first_panel; i < last_panel; i++) {
      const int k0 = i * width, lanes = p.width - k0 < width ? p.width - k0 : width, tile_vectors = (lanes + L - 1) / L;
      const int64_t channel = int64_t(group) * p.width + k0;
      T* const to = target + channel * p.target.c;
      panel.target = out;
      if constexpr (sizeof(T) == sizeof(A))
        if (in_memory) panel.target = to + s.n0 * p.target.n + s.row0 * p.target.h;
      const int64_t vector = int64_t(group) * vectors + i * channels.tile_vectors;
      if (t.packs_weights) pack_weights<T>(t.filters, w, own_weights, vector, vector + tile_vectors);
      panel.weights = t.packs_weights ? own_weights : weights + vector * vector_stride;
      panel.bias = bias + vector * L;
      panel.vectors = tile_vectors, panel.lanes = in_memory ? lanes : tile_vectors * L;
      for (const Segment* g = segments; g < segments + segment_count; g++) tiles<A>(panel, *g, ahead);
      if (in_memory) continue;
      const int rows = s.row1 - s.row0;
      if constexpr (sizeof(T) == sizeof(A))
        for (int n = s.n0; n < s.n1 && finish; n++)
          finish_panel<A, T>(*finish, out + (n - s.n0) * rows * columns * width, width, s.row0, rows, int(columns), n,
                             channel, lanes, finished);
      for (int n = s.n0; n < s.n1 && !finish; n++)
        for (int v = 0; v < tile_vectors; v++)
          give_back(out + (n - s.n0) * rows * columns * width + v * L, width, rows, int(columns),
                    lanes - v * L < L ? lanes - v * L : L,
                    to + n * p.target.n + s.row0 * p.target.h + v * L * p.target.c, p.target);
    }
  }
}

}  // namespace convlab::CONVLAB_ISA::register_tiled

CONVLAB_DEFINE(register_tiled, register_tiled::run)
