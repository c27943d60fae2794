// The products of the points, register tiled: where the time goes.
#pragma once
#include "cpu/conv2d/ahead.h"
#include "cpu/conv2d/winograd/tiles.h"

namespace convlab::CONVLAB_ISA::winograd {

// Sums of 32 channels, or in wgrad of 32 tiles, are short enough for their rounding, which the outputs' transformation
// amplifies, to stay below that of a direct convolution. With 32 registers a tile has two sets of sums, for even and odd channels, and is added
// to memory half as often.
constexpr int kChain = 32;
constexpr int kTiles = kManyRegisters ? 7 : 6, kSets = kManyRegisters ? 2 : 1, kRows = kManyRegisters ? 8 : 6;

// M [tiles, panel] (+)= V [channels / kBlock, .. tiles ..] U [channels, panel], for M tiles and NV vectors; channels are
// even, and `block` elements lie between blocks of V
template <int M, int NV, bool add>
[[gnu::noinline]] void multiply(const float* v, int64_t block, const float* u, int channels, float* sums) {
  Floats acc[kSets][M][NV] = {};
  for (int c = 0; c < channels; c += kBlock, v += block) {
    const int end = least(kBlock, channels - c);
    const float* x = v;
    for (int j = 0; j < end; j += 2, x += 2, u += 2 * kPanel)
#pragma GCC unroll 2
      for (int odd = 0; odd < 2; odd++) {
        Floats row[NV];
#pragma GCC unroll 4
        for (int n = 0; n < NV; n++) {
          row[n] = load<float>(u + odd * kPanel + n * kWidth);
          keep(row[n]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < M; i++) {
          Floats value = broadcast<float>(x[i * kBlock + odd]);
          keep(value);
#pragma GCC unroll 4
          for (int n = 0; n < NV; n++) acc[odd % kSets][i][n] += value * row[n];
        }
      }
  }
#pragma GCC unroll 16
  for (int i = 0; i < M; i++)
#pragma GCC unroll 4
    for (int n = 0; n < NV; n++) {
      Floats sum = acc[0][i][n];
      if (kSets > 1) sum += acc[kSets - 1][i][n];
      float* const to = sums + i * kPanel + n * kWidth;
      store<float>(to, add ? load<float>(to) + sum : sum);
    }
}

using Multiply = void (*)(const float*, int64_t, const float*, int, float*);

template <int NV, bool add, int... M> CONVLAB_INLINE Multiply multiply_of(int tiles, indices<M...>) {
  static constexpr Multiply all[] = {&multiply<M + 1, NV, add>...};
  return all[tiles - 1];
}

constexpr int kChannels = kSets * kChain;  // at most, of a call of multiply()

// All tiles of a strip, with a block of filters: source channels [c0, c0 + channels), `vectors` of the panel. Every call
// for a point's channels asks for a share of what is `ahead`.
template <int m>
void multiply_all(const Runs& runs, const Stack& inputs, int tiles, int c0, int channels, const Stack& filters,
                  int vectors, const Stack& sums, Ahead& ahead) {
  using sizes = indices_to<kTiles>;
  const int64_t block = int64_t(tiles) * kBlock;
  for (int i = 0; i < (m + 2) * (m + 2); i++) {
    const Run run = runs.of(i / (m + 2), i % (m + 2));
    const int count = run.end - run.begin, parts = (count + kTiles - 1) / kTiles;
    for (int c = 0; c < channels; c += kChannels) {
      ahead.ask();
      for (int part = 0, begin = run.begin; part < parts; part++) {
        const int size = (count - (begin - run.begin) + parts - part - 1) / (parts - part);
        const bool add = c0 + c > 0;
        const Multiply f = vectors == 1
                               ? (add ? multiply_of<1, true>(size, sizes{}) : multiply_of<1, false>(size, sizes{}))
                               : (add ? multiply_of<kTileVectors, true>(size, sizes{})
                                      : multiply_of<kTileVectors, false>(size, sizes{}));
        f(inputs.at + i * inputs.stride + (c0 + c) / kBlock * block + begin * kBlock, block,
          filters.at + i * filters.stride + c * kPanel, least(kChannels, channels - c),
          sums.at + i * sums.stride + begin * kPanel);
        begin += size;
      }
    }
  }
}

// wgrad: dU [J source channels, panel] (+)= V^T [J, tiles] Y [tiles, panel]
template <int J, int NV, bool add>
[[gnu::noinline]] void accumulate(const float* v, const float* y, int tiles, float* sums) {
  Floats acc[J][NV] = {};
#pragma GCC unroll 2
  for (int t = 0; t < tiles; t++, v += kBlock, y += kPanel) {
    Floats row[NV];
#pragma GCC unroll 4
    for (int n = 0; n < NV; n++) {
      row[n] = load<float>(y + n * kWidth);
      keep(row[n]);
    }
#pragma GCC unroll 16
    for (int j = 0; j < J; j++) {
      Floats value = broadcast<float>(v[j]);
      keep(value);
#pragma GCC unroll 4
      for (int n = 0; n < NV; n++) acc[j][n] += value * row[n];
    }
  }
#pragma GCC unroll 16
  for (int j = 0; j < J; j++)
#pragma GCC unroll 4
    for (int n = 0; n < NV; n++) {
      float* const to = sums + j * kPanel + n * kWidth;
      store<float>(to, add ? load<float>(to) + acc[j][n] : acc[j][n]);
    }
}

using Accumulate = void (*)(const float*, const float*, int, float*);

template <int NV, bool add, int... J> CONVLAB_INLINE Accumulate accumulate_of(int channels, indices<J...>) {
  static constexpr Accumulate all[] = {&accumulate<J + 1, NV, add>...};
  return all[channels - 1];
}

// Source channels [c0, c1) of a strip's V, and a panel of its dy -> dU [points, c1 - c0, panel]
template <int m>
void accumulate_all(const Runs& runs, const Stack& inputs, int tiles, int c0, int c1, const Stack& grads, int vectors,
                    bool add, const Stack& sums) {
  using sizes = indices_to<kRows>;
  for (int i = 0; i < (m + 2) * (m + 2); i++) {
    const Run run = runs.of(i / (m + 2), i % (m + 2));
    for (int c = c0, channels; c < c1; c += channels) {
      const int left = least(kBlock - c % kBlock, c1 - c), parts = (left + kRows - 1) / kRows;
      channels = (left + parts - 1) / parts;
      for (int t = run.begin; t < run.end || t == run.begin; t += kChain) {
        const bool more = add || t > run.begin;
        const Accumulate f = vectors == 1 ? (more ? accumulate_of<1, true>(channels, sizes{})
                                                  : accumulate_of<1, false>(channels, sizes{}))
                                          : (more ? accumulate_of<kTileVectors, true>(channels, sizes{})
                                                  : accumulate_of<kTileVectors, false>(channels, sizes{}));
        f(inputs.at + i * inputs.stride + (c / kBlock * int64_t(tiles) + t) * kBlock + c % kBlock,
          grads.at + i * grads.stride + t * kPanel, least(kChain, run.end - t),
          sums.at + i * sums.stride + (c - c0) * kPanel);
      }
    }
  }
}

}  // namespace convlab::CONVLAB_ISA::winograd
