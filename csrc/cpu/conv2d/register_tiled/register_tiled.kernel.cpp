// Forward and dgrad, register tiled: a tile of pixels times channels of the target lives in vector registers, and every
// step multiplies a few pixels' source elements, broadcast, with vectors of packed weights.
//
// What it does    The source is unrolled by addresses alone. Its channels lie innermost, in memory already
//                 (channels_last) or in a panel of a strip of rows that stays in the L2; where they are few,
//                 planes are read as they lie, and the pixels of a row have one address. A tap and a channel are an
//                 offset to a pixel's address, and one loop goes over the offsets. Pixels come sorted by the taps that
//                 reach them, so padding costs nothing and the loop has no test. The target of a strip is gathered in a
//                 panel as well where its memory has another order, and transposed in registers. Tiles ask for the
//                 next strip's source.
// Against direct  two vectors of weights serve up to 14 pixels, a broadcast serves two vectors: 16 loads for 28
//                 multiply-adds.
// What bounds it  multiply-adds: both ports busy from about 64 channels on. Below 16 target channels it wastes lanes;
//                 `direct` wastes none there.
#include "cpu/conv2d/block/ending.h"
#include "cpu/conv2d/packed_weights.h"
#include "cpu/conv2d/register_tiled/ahead.h"
#include "cpu/conv2d/register_tiled/source_of_strip.h"

namespace convlab::CONVLAB_ISA::register_tiled {

constexpr int64_t kNearBytes = 16 << 10;  // of a group's weights, which then stay in the L1
constexpr int64_t kLargeBytes = 2 << 20;  // of a group's target, which does not stay in the L2
constexpr int64_t kFewTiles = 256;  // of a strip: they ask for part of the next one, lest requests wait for one another

#if defined(__AVX512F__)  // else GCC keeps addresses in vectors, and moving them takes a port that multiplies (1.04)
#define CONVLAB_TUNED [[gnu::target("tune=icelake-server")]]
#else
#define CONVLAB_TUNED
#endif

// Some of a class's terms: their weights stay in the L1 while all tiles meet them
struct Chunk {
  const Term *first, *last;
  int64_t step;  // from a channel of the source to the next, in elements
  bool begins, many;  // with the bias, else what the target has is added; so many that the target is asked for
};

// M pixels times NV vectors of channels, from the first pixel and the first vector on. side_by_side: the pixels' source
// elements are, and one address serves all.
template <class A, int M, int NV, bool side_by_side>
CONVLAB_TUNED void tile(const Chunk& chunk, const A* source, const Pixel* pixels, const A* weights,
                        int64_t vector_stride, const A* bias, A* target, int lanes) {
  constexpr int L = kLanes<A>, kBases = side_by_side ? 1 : M;
  Vec<A> sums[M][NV];
  const A* x[kBases];
#pragma GCC unroll 32
  for (int m = 0; m < kBases; m++) x[m] = source + pixels[m].source;
#pragma GCC unroll 32
  for (int m = 0; m < M; m++) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) {
      sums[m][v] = chunk.begins ? load<A>(bias + v * L) : Vec<A>{};
      if (chunk.many) __builtin_prefetch(target + pixels[m].target + v * L, 1);
    }
  }

  const int64_t step = chunk.step;
  for (const Term* t = chunk.first; t != chunk.last; t++) {
    int64_t at = t->source;
    const A* w = weights + int64_t(t->weights) * L;
    for (const A* const end = w + int64_t(t->channels) * L; w != end; w += L, at += step) {
      Vec<A> row[NV];
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) row[v] = load<A>(w + v * vector_stride);
      const A* first = x[0] + at;
      if (side_by_side) keep(first);
#pragma GCC unroll 32
      for (int m = 0; m < M; m++) {
        Vec<A> value = broadcast<A>(side_by_side ? first[m] : x[m % kBases][at]);
        if (NV > 1) keep(value);
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) sums[m][v] += value * row[v];
      }
    }
  }

  if (lanes == NV * L) {
#pragma GCC unroll 32
    for (int m = 0; m < M; m++)
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) {
        A* const to = target + pixels[m].target + v * L;
        store<A>(to, chunk.begins ? sums[m][v] : sums[m][v] + load<A>(to));
      }
  } else {
#pragma GCC unroll 32
    for (int m = 0; m < M; m++)
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) {
        A* const to = target + pixels[m].target + v * L;
        const int left = lanes - v * L;
        store_some<A>(to, chunk.begins ? sums[m][v] : sums[m][v] + load_some<A>(to, left), left);
      }
  }
}

// The sums of a tile fill the registers
constexpr int most_pixels(int vectors) {
  return vectors == 1 ? kTilePixels : kTilePixels * kTileVectors / vectors;
}

template <class A, int NV, bool side_by_side> auto tile_of(int pixels) {
  return of_size<most_pixels(NV)>(pixels, [](auto m) { return &tile<A, m, NV, side_by_side>; });
}
template <class A, bool side_by_side> auto tile_of(int pixels, int vectors) {
  switch (vectors) {
#if defined(__AVX512F__)
    case 4: return tile_of<A, 4, side_by_side>(pixels);
#endif
#if defined(__AVX2__)
    case 3: return tile_of<A, 3, side_by_side>(pixels);
#endif
    case 2: return tile_of<A, 2, side_by_side>(pixels);
    default: return tile_of<A, 1, side_by_side>(pixels);
  }
}

inline int terms_in_chunk(const Channels& c) { return terms_at_once(c.tile_vectors) / c.depth_at_once; }

// All pixels of one class, each run in tiles of nearly equal size
template <class A>
void tiles(const Segment& g, const Term* terms, const A* source, const Pixel* pixels, const A* weights,
           int64_t vector_stride, const A* bias, A* target, int vectors, int lanes, const Channels& channels, int64_t step, Ahead& ahead) {
  const TilesOf all(int(g.run), most_pixels(vectors));
  const Term *const first = terms + g.term, *const last = first + g.term_count;
  const int most = terms_in_chunk(channels);
  Chunk chunk{first, first, step, true, g.term_count * channels.depth_at_once >= kTermsToPrefetch};
  do {
    chunk.last = last - chunk.first < most ? last : chunk.first + most;
    for (int64_t run = 0; run < g.pixel_count; run += g.run)
      for (int i = 0; i < all.count; i++) {
        const int size = all.size(i);
        const auto f = g.side_by_side ? tile_of<A, true>(size, vectors) : tile_of<A, false>(size, vectors);
        ahead.ask();
        f(chunk, source, pixels + g.pixel + run + all.first(i), weights, vector_stride, bias, target, lanes);
      }
    chunk = {chunk.last, chunk.last, step, false, false};
  } while (chunk.first != last);
}

// Panels [first, last) of all pixels of one class, a tile's at once, and the next tile's lines of the target asked for: a
// large target is written line after line.
template <class A>
void all_channels(const Segment& g, const Term* terms, const A* source, const Pixel* pixels, const A* weights,
                  int64_t vector_stride, const A* bias, A* target, const Channels& channels, int64_t step, int width, int first, int last,
                  Ahead& ahead) {
  constexpr int L = kLanes<A>;
  const int kPanel = channels.tile_vectors * L, most = most_pixels(channels.tile_vectors);
  Segment some = g;
  for (int64_t left = g.pixel_count; left > 0; left -= some.run, some.pixel += some.run) {
    some.run = some.pixel_count = g.side_by_side ? g.run : left < most ? left : most;
    for (int i = first; i < last; i++) {
      const int k0 = i * kPanel, lanes = width - k0 < kPanel ? width - k0 : kPanel;
      for (int64_t m = some.run; m < 2 * some.run && m < left; m++)
        for (int v = 0; v < lanes; v += 2 * L) __builtin_prefetch(target + k0 + v + pixels[some.pixel + m].target, 1);
      tiles<A>(some, terms, source, pixels, weights + i * channels.tile_vectors * vector_stride, vector_stride, bias + k0,
               target + k0, (lanes + L - 1) / L, lanes, channels, step, ahead);
    }
  }
}

// Where the strip's target goes, from its first row on: into memory itself, or a panel [pixels, vectors of a tile]
struct Into {
  int64_t n, h, w;  // strides
};

// The terms and pixels of the classes, one after another, as offsets from where the strip's source (`lens`) and target
// begin; how many segments
template <class A>
int sort_pixels(const Product& p, const Strip& s, const Lens<A>& lens, const Into& into, int depth_at_once,
                Segment* segments, Term* terms, Pixel* pixels) {
  Segment* segment = segments;
  Term* term = terms;
  Pixel* pixel = pixels;
  for (int rc = 0; rc < p.rows.count; rc++)
    for (int cc = 0; cc < p.columns.count; cc++) {
      const TapClassView &vertical = p.rows.classes[rc], &horizontal = p.columns.classes[cc];
      Pixel* const first_pixel = pixel;
      for (int n = s.n0; n < s.n1; n++)
        for (int i = 0; i < vertical.place_count; i++) {
          const Place& row = vertical.places[i];
          if (row.at < s.row0 || row.at >= s.row1) continue;
          const int64_t from = (n - s.n0) * lens.n + (row.base - lens.row0) * lens.h,
                        to = (n - s.n0) * into.n + (row.at - s.row0) * into.h;
          for (int j = 0; j < horizontal.place_count; j++)
            *pixel++ = {from + horizontal.places[j].base * lens.w, to + horizontal.places[j].at * into.w};
        }
      if (pixel == first_pixel) continue;
      Term* const first_term = term;
      for (int i = 0; i < vertical.tap_count; i++)
        for (int j = 0; j < horizontal.tap_count; j++) {
          const int source = int(vertical.offsets[i] * lens.h + horizontal.offsets[j] * lens.w);
          const int weights = (vertical.taps[i] * p.columns.kernel + horizontal.taps[j]) * p.depth;
          for (int c = 0; c < p.depth; c += depth_at_once)
            *term++ = {source + c * int(lens.c), weights + c, p.depth - c < depth_at_once ? p.depth - c : depth_at_once};
        }
      const int across = horizontal.place_count, first_base = horizontal.places[0].base;
      const bool side_by_side =
          lens.w == 1 && across > 1 && horizontal.places[across - 1].base - first_base == across - 1;
      const int64_t count = pixel - first_pixel;
      *segment++ = {first_term - terms, term - first_term, first_pixel - pixels, count, side_by_side ? across : count,
                    side_by_side};
    }
  return int(segment - segments);
}

// The pieces [begin, end): strips x groups x parts of the channels. weights [groups, vectors of width, R, S, depth, L], or null to pack them from
// w, a tile's vectors at a time; bias [groups, vectors of width, L]
template <class T>
void run(const TiledProduct& t, const T* source, const T* w, const acc_t<T>* weights, const acc_t<T>* bias, T* target,
         const Finish* finish, int64_t begin, int64_t end, char* scratch) {
  using A = acc_t<T>;
  constexpr int L = kLanes<A>;
  const Product& p = t.product;
  const Channels channels(t, kSet, L);
  const int kPanel = channels.tile_vectors * L;
  const int vectors = channels.vectors, panels = channels.panels, parts = channels.parts(t);
  const int64_t vector_stride = weights_of_vector(t, channels), columns = p.columns.target;
  const bool in_memory = sizeof(T) == sizeof(A) && p.target.c == 1 && !finish;
  const bool near = in_memory && panels > 1 && !t.packs_weights &&
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
                                    : Into{(s.row1 - s.row0) * columns * kPanel, columns * kPanel, kPanel};
        segment_count = sort_pixels(p, s, lens, into, channels.depth_at_once, segments, terms, pixels);
        images_sorted = s.n1 - s.n0;
      }
      ahead = {};
      if (p.groups == 1 && (prepared + 1) * parts < end) {
        const Strip coming = strip_of(p, prepared + 1);
        int64_t count = 0, chunk = terms_in_chunk(channels);
        for (const Segment* g = segments; g < segments + segment_count; g++)
          count += g->pixel_count / g->run * TilesOf(int(g->run), most_pixels(channels.tile_vectors)).count *
                   ((g->term_count + chunk - 1) / chunk);
        count *= panels;
        int row, rows;
        rows_reached(p, coming, row, rows);
        look_ahead(p, coming, source, p.source, p.depth, row, rows, count < kFewTiles ? kFewTiles : count, ahead);
      }
    }
    const int first_panel = part * t.panels_per_piece,
              last_panel = first_panel + t.panels_per_piece < panels ? first_panel + t.panels_per_piece : panels;
    if constexpr (sizeof(T) == sizeof(A))
      if (near) {
        const int64_t vector = int64_t(group) * vectors;
        A* const to = target + s.n0 * p.target.n + s.row0 * p.target.h + int64_t(group) * p.width;
        for (const Segment* g = segments; g < segments + segment_count; g++)
          all_channels<A>(*g, terms, lens.data, pixels, weights + vector * vector_stride, vector_stride,
                          bias + vector * L, to, channels, lens.c, p.width, first_panel, last_panel, ahead);
        continue;
      }
    for (int i = first_panel; i < last_panel; i++) {
      const int k0 = i * kPanel, lanes = p.width - k0 < kPanel ? p.width - k0 : kPanel,
                tile_vectors = (lanes + L - 1) / L;
      const int64_t channel = int64_t(group) * p.width + k0;
      T* const to = target + channel * p.target.c;
      A* tile_target = out;
      if constexpr (sizeof(T) == sizeof(A))
        if (in_memory) tile_target = to + s.n0 * p.target.n + s.row0 * p.target.h;
      const int64_t vector = int64_t(group) * vectors + i * channels.tile_vectors;
      if (t.packs_weights) pack_weights<T>(t.filters, w, own_weights, vector, vector + tile_vectors);
      const A* const tile_weights = t.packs_weights ? own_weights : weights + vector * vector_stride;
      for (const Segment* g = segments; g < segments + segment_count; g++)
        tiles<A>(*g, terms, lens.data, pixels, tile_weights, vector_stride, bias + vector * L, tile_target,
                 tile_vectors, in_memory ? lanes : kPanel, channels, lens.c, ahead);
      if (in_memory) continue;
      const int rows = s.row1 - s.row0;
      if constexpr (sizeof(T) == sizeof(A))
        for (int n = s.n0; n < s.n1 && finish; n++)
          finish_panel<A, T>(*finish, out + (n - s.n0) * rows * columns * kPanel, kPanel, s.row0, rows, int(columns), n,
                             channel, lanes, finished);
      for (int n = s.n0; n < s.n1 && !finish; n++)
        for (int v = 0; v < tile_vectors; v++)
          give_back(out + (n - s.n0) * rows * columns * kPanel + v * L, kPanel, rows, int(columns),
                    lanes - v * L < L ? lanes - v * L : L,
                    to + n * p.target.n + s.row0 * p.target.h + v * L * p.target.c, p.target);
    }
  }
}

}  // namespace convlab::CONVLAB_ISA::register_tiled

CONVLAB_DEFINE(register_tiled, register_tiled::run)
