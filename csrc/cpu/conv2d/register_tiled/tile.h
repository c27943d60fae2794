// A tile of pixels times channels of the target in vector registers: the loop where the time goes. A step multiplies a
// few pixels' source elements, broadcast, with vectors of weights. Six pixels times four vectors need 10 loads and 39
// instructions for 24 multiply-adds, where twelve times two need 17 and 46; on a core whose other thread is busy that is
// what counts. With sixteen registers tiles are four pixels times three vectors, and kSteps steps are unrolled. Weights come
// from the L1, because all tiles meet some of the terms before any meets the next.
#pragma once
#include "cpu/conv2d/block/ending.h"
#include "cpu/conv2d/register_tiled/ahead.h"
#include "cpu/conv2d/register_tiled/source_of_strip.h"

namespace convlab::CONVLAB_ISA::register_tiled {

#if defined(__AVX512F__)  // else GCC keeps addresses in vectors, and moving them takes a port that multiplies (1.04)
#define CONVLAB_TUNED [[gnu::target("tune=icelake-server")]]
#else
#define CONVLAB_TUNED
#endif

// What tiles of the same channels share
template <class A> struct Panel {
  const Term* terms;
  const A* source = nullptr;
  int64_t step = 0;  // from a channel of the source to the next, in elements
  const Pixel* pixels;
  const A* weights = nullptr;
  int64_t vector_stride = 0, tap_stride = 0;  // of the weights; from a tap to the one that reads the next element
  int64_t width = 0;  // of planes: from one to the next, of which the weights' vectors are neighbours
  const A* bias = nullptr;
  A* target = nullptr;
  int vectors = 0, lanes = 0;
  const Landing* landings = nullptr;  // of the vectors
  int64_t gap = 0;  // of the landings
  Ending ending{};  // of the last chunk
};

// Some terms of a class
struct Chunk {
  const Term *first, *last;
  bool begins, ends;  // with the bias, else what the target has is added; with the ending
  bool many;  // so many that the target is asked for
};

// T taps of a source channel, for M neighbouring pixels and one vector of channels. What tap t + 1 reads for a pixel, tap t
// reads for the next one, so M + T - 1 broadcasts do, not M T: with one vector of channels these, two a cycle, are what an
// ordinary tile waits for.
template <class A, int T, int M>
CONVLAB_INLINE void slide(Vec<A> (&sums)[M][1], const A* near, const A* weights, int64_t tap_stride) {
  Vec<A> taps[T];
#pragma GCC unroll 4
  for (int t = 0; t < T; t++) taps[t] = load<A>(weights + t * tap_stride);
  keep(near);
#pragma GCC unroll 32
  for (int m = 0; m < M + T - 1; m++) {
    Vec<A> value = broadcast<A>(near[m]);
    keep(value);
#pragma GCC unroll 4
    for (int t = 0; t < T; t++)
      if (t <= m && m - t < M) sums[m - t][0] += value * taps[t];
  }
}

// Whether one address serves all of a tile's pixels
constexpr bool one_address(Reads reads) { return reads == Reads::side_by_side || reads == Reads::sliding; }
constexpr bool of_planes(Reads reads) { return reads == Reads::weights || reads == Reads::pairs_of_weights; }

// M pixels, from `first` on, times NV vectors of channels
template <class A, int M, int NV, Reads reads>
CONVLAB_TUNED void tile(const Panel<A>& p, const Chunk& chunk, int64_t first) {
  constexpr bool pairs = reads == Reads::pairs_of_weights, side_by_side = one_address(reads);
  constexpr int L = kLanes<A>, kBases = side_by_side ? 1 : M;
  const Pixel* const pixels = p.pixels + first;
  A* const target = p.target;
  Landing landings[NV];
#pragma GCC unroll 4
  for (int v = 0; v < NV; v++) landings[v] = pairs ? p.landings[v] : Landing{v * L, L};
  const auto place = [&](int m, int v)
                         __attribute__((always_inline)) { return target + pixels[m].target + landings[v].at; };
  Vec<A> sums[M][NV];
  const A* x[kBases];
#pragma GCC unroll 32
  for (int m = 0; m < kBases; m++) x[m] = p.source + pixels[m].source;
#pragma GCC unroll 32
  for (int m = 0; m < M; m++) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) {
      sums[m][v] = !chunk.begins      ? Vec<A>{}
                   : of_planes(reads) ? broadcast<A>(p.bias[first + m])
                                      : load<A>(p.bias + v * L);
      if (chunk.many) __builtin_prefetch(place(m, v), 1);
    }
  }

  const int64_t step = p.step, width = of_planes(reads) ? p.width : L,
                vector_stride = of_planes(reads) ? L : p.vector_stride;
  for (const Term* t = chunk.first; t != chunk.last; t++) {
    int64_t at = t->source;
    const A* w = p.weights + int64_t(t->weights) * L;
    if constexpr (reads == Reads::sliding) {
      if (t->count == 3) slide<A, 3>(sums, x[0] + at, w, p.tap_stride);
      else slide<A, 2>(sums, x[0] + at, w, p.tap_stride);
      continue;
    }
    // A step: the vectors weights(v), and what pixels have at `at`
    const auto multiply = [&](auto weights, int64_t at) __attribute__((always_inline)) {
      Vec<A> row[NV];
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) row[v] = load<A>(weights(v));
      const A* near = x[0] + at;
      if (side_by_side) keep(near);
#pragma GCC unroll 32
      for (int m = 0; m < M; m++) {
        Vec<A> value =
            pairs ? broadcast_pair<A>(x[m % kBases] + at) : broadcast<A>(side_by_side ? near[m] : x[m % kBases][at]);
        if (NV > 1) keep(value);
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) add_product<A>(sums[m][v], value, row[v]);
      }
    };
    int left = t->count;
    // kSteps of them at once, where the compiler knows how far apart they are: from addresses of all vectors, or of the first
    const auto unrolled = [&](auto step, auto width) __attribute__((always_inline)) {
      constexpr int kAddresses = of_planes(reads) ? 1 : NV;
      const A* rows[kAddresses];
#pragma GCC unroll 4
      for (int v = 0; v < kAddresses; v++) rows[v] = w + v * vector_stride;
      for (; left >= kSteps; left -= kSteps, at += kSteps * step) {
        keep(at);  // one index of the pixels' addresses: they would take an addition each
#pragma GCC unroll 4
        for (int i = 0; i < kSteps; i++)
          multiply([&](int v)
                       __attribute__((always_inline)) { return rows[v % kAddresses] + v / kAddresses * L + i * width; },
                   at + i * step);
#pragma GCC unroll 4
        for (int v = 0; v < kAddresses; v++) {
          rows[v] += kSteps * width;
          keep(rows[v]);
        }
      }
      w = rows[0];
    };
    if constexpr (kSteps > 1 && M * NV > 8 && !side_by_side && !pairs) {  // smaller tiles wait for their sums
      constexpr std::integral_constant<int, 1> one{};
      constexpr std::integral_constant<int, L> packed{};
      constexpr std::integral_constant<int, NV * L> whole{};
      if constexpr (of_planes(reads)) {
        if (step == one && width == whole) unrolled(one, whole);
        if (step == packed && width == whole) unrolled(packed, whole);
      } else if (step == one) unrolled(one, packed);
    }
    for (; left > 0; left--, w += width, at += step)
      multiply([&](int v) __attribute__((always_inline)) { return w + v * vector_stride; }, at);
  }

  // f(sum, where it goes, its lanes: from the first on, or a rest of them)
  const auto each_of = [&](auto whole, auto f) __attribute__((always_inline)) {
#pragma GCC unroll 32
    for (int m = 0; m < M; m++)
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) {
        const int lanes = whole ? L : p.lanes - v * L, first = landings[v].count;
        f(sums[m][v], place(m, v), 0, lanes < first ? lanes : first);
        if (pairs && first < L && first < lanes)
          f(sums[m][v], place(m, v) + first + p.gap, first, lanes < L ? lanes : L);
      }
  };
  const auto each = [&](auto f) __attribute__((always_inline)) {
    if (p.lanes == NV * L) each_of(std::true_type(), f);
    else each_of(std::false_type(), f);
  };
  if (!chunk.begins)
    each([](Vec<A>& sum, A* to, int first, int end)
             __attribute__((always_inline)) { sum += pairs ? load_part<A>(to, first, end) : load_some<A>(to, end); });
  if (chunk.ends) activate<A>(p.ending, sums);
  each([](Vec<A>& sum, A* to, int first, int end) __attribute__((always_inline)) {
    if (pairs) store_part<A>(to, sum, first, end);
    else store_some<A>(to, sum, end);
  });
}

// The sums of a tile fill the registers. Of one vector that takes 24 pixels, with AVX-512, and there are no registers for
// the addresses of so many: only where one address serves them all.
constexpr int most_pixels(int vectors, Reads reads = Reads::apart) {
  return vectors == 1 && !one_address(reads) ? kTilePixels : kTilePixels * kTileVectors / vectors;
}

template <class A, int NV, Reads reads> auto tile_of(int pixels) {
  return of_size<most_pixels(NV, reads)>(pixels, [](auto m) { return &tile<A, m, NV, reads>; });
}
template <class A, Reads reads> auto tile_of(int pixels, int vectors) {
  if constexpr (kMostVectors >= 4)
    if (vectors == 4) return tile_of<A, 4, reads>(pixels);
  if constexpr (kMostVectors >= 3)
    if (vectors == 3) return tile_of<A, 3, reads>(pixels);
  return vectors == 2 ? tile_of<A, 2, reads>(pixels) : tile_of<A, 1, reads>(pixels);
}
template <class A, bool planes> auto tile_of(int pixels, int vectors, Reads reads) {
  if constexpr (slides(kSet) && !planes)
    if (reads == Reads::sliding) return tile_of<A, 1, Reads::sliding>(pixels);
  constexpr Reads one = planes ? Reads::weights : Reads::apart,
                  other = planes ? Reads::pairs_of_weights : Reads::side_by_side;
  return reads == other ? tile_of<A, other>(pixels, vectors) : tile_of<A, one>(pixels, vectors);
}

// All pixels of one class, each run in tiles of nearly equal size, a chunk of the terms after another. begins: with the
// bias, which other terms may have added already; ends: no others follow. planes: of planes.kernel.cpp
template <class A, bool planes = false>
void tiles(const Panel<A>& p, const Segment& g, Ahead& ahead, bool begins = true, bool ends = true) {
  const TilesOf all(int(g.run), most_pixels(p.vectors, g.reads));
  const Term *const first = p.terms + g.term, *const last = first + g.term_count;
  Chunk chunk{first, first, begins, ends, begins && g.products >= kTermsToPrefetch};
  do {
    chunk.last = last - chunk.first < g.terms_in_chunk ? last : chunk.first + g.terms_in_chunk;
    chunk.ends = ends && chunk.last == last;
    for (int64_t run = 0; run < g.pixel_count; run += g.run)
      for (int i = 0; i < all.count; i++) {
        const int size = all.size(i);
        ahead.ask();
        tile_of<A, planes>(size, p.vectors, g.reads)(p, chunk, g.pixel + run + all.first(i));
      }
    chunk = {chunk.last, chunk.last, false, false, false};
  } while (chunk.first != last);
}

}  // namespace convlab::CONVLAB_ISA::register_tiled
