// Depthwise tiles of a few places times a few vectors of channels side by side, of pixels that are read and written where
// they lie: whole lines are read one after another, and so few streams the hardware foresees.
#pragma once
#include "cpu/conv2d/block/ending.h"
#include "cpu/conv2d/depthwise/strip_sources.h"

namespace convlab::CONVLAB_ISA::depthwise {

constexpr int kWide = 4;  // vectors of a wide tile
// Places of a tile of so many vectors, whose sums fill the registers beside the weights: three of each vector, where taps
// come in triples
constexpr int wide_places(int vectors) { return kManyRegisters || vectors < kWide ? 4 : 2; }
// With 16 registers, to share loads is worth more than wide tiles (AVX2: 1.1 to 1.9 times as fast); where taps share none,
// whole lines are read side by side.
inline int widest(const Taps& taps) { return kManyRegisters || !taps.triples ? kWide : 2; }
constexpr int kTilesAhead = 2;  // lines of the target are asked for, unless vectors are lines: most are written unread

// M places times V vectors of channels side by side, `step` elements and one vector apart. weights: of vectors
// `vector_stride` apart
template <class A, int M, int V>
void wide_tile(const Taps& taps, const Ending& ending, const A* source, int64_t step, const A* weights,
               int64_t vector_stride, const A* bias, A* target, int64_t target_step) {
  constexpr int L = kLanes<A>;
  Vec<A> sums[M][V];
#pragma GCC unroll 4
  for (int m = 0; m < M; m++)
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) {
      sums[m][v] = load<A>(bias + v * L);
      if (kVectorBytes < kCacheLine) __builtin_prefetch(target + (m + kTilesAhead * M) * target_step + v * L, 1);
    }
  const Tap *const triples = taps.list + taps.triples, *const end = triples + taps.singles;
  const Tap* tap = taps.list;
  for (; tap < triples; tap++) {
    const A *w = weights + tap->weights * L, *x = source + tap->source;
    Vec<A> w0[V], w1[V], w2[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; v++, w += vector_stride, keep(w))
      w0[v] = load<A>(w), w1[v] = load<A>(w + taps.weight_step * L), w2[v] = load<A>(w + 2 * taps.weight_step * L);
#pragma GCC unroll 8
    for (int j = 0; j < M + 2; j++, x += step, keep(x))
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) {
        Vec<A> value = load<A>(x + v * L);
        keep(value);
        if (j < M) sums[j < M ? j : 0][v] += w0[v] * value;
        if (j >= 1 && j <= M) sums[j >= 1 && j <= M ? j - 1 : 0][v] += w1[v] * value;
        if (j >= 2) sums[j >= 2 ? j - 2 : 0][v] += w2[v] * value;
      }
  }
  for (; tap < end; tap++) {
    const A *vector = weights + tap->weights * L, *x = source + tap->source, *places[M];
#pragma GCC unroll 4
    for (int m = 0; m < M; m++) places[m] = m ? places[m ? m - 1 : 0] + step : x, keep(places[m]);
#pragma GCC unroll 4
    for (int v = 0; v < V; v++, vector += vector_stride, keep(vector)) {
      Vec<A> weight = load<A>(vector);
      if (M > 1) keep(weight);
#pragma GCC unroll 4
      for (int m = 0; m < M; m++) sums[m][v] += weight * load<A>(places[m] + v * L);
    }
  }
  activate<A>(ending, sums);
#pragma GCC unroll 4
  for (int m = 0; m < M; m++)
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) store<A>(target + m * target_step + v * L, sums[m][v]);
}

template <class A, int V> auto wide_tile_of(int places) {
  return of_size<wide_places(V)>(places, [](auto m) { return &wide_tile<A, m, V>; });
}

}  // namespace convlab::CONVLAB_ISA::depthwise
