// Tiles by size: K target channels, of convlab::direct::kChannels, times V vectors or taps.
#pragma once
#include "cpu/conv2d/direct/direct.h"
#include "cpu/simd/vec.h"

namespace convlab::CONVLAB_ISA::direct {

using namespace convlab::direct;

constexpr int kSums = kTilePixels * kTileVectors;  // registers for sums

template <class Tile, int K, int V> constexpr typename Tile::Function tile_or_null() {
  if constexpr (K * V <= kSums) return Tile::template of<K, V>();
  else return nullptr;
}

// The tiles of K channels whose sums fit
template <class Tile, int... V> struct Sizes {
  typename Tile::Function tiles[sizeof...(V)];
  template <int K> static constexpr Sizes of() { return {{tile_or_null<Tile, K, V>()...}}; }
};

// Of the tiles of `channels` channels the largest that up to `left` fill; how many it takes goes to `taken`. The table is
// static: a local one would be copied to the stack by every call.
template <class Tile, int... V> typename Tile::Function largest_tile(int channels, int64_t left, int& taken) {
  using Row = Sizes<Tile, V...>;
  static constexpr Row rows[] = {Row::template of<8>(), Row::template of<6>(), Row::template of<4>(),
                                 Row::template of<3>(), Row::template of<2>(), Row::template of<1>()};  // kChannels
  static constexpr int sizes[] = {V...};
  int row = 0;
  while (kChannels[row] != channels) row++;
  for (int i = 0;; i++)
    if (rows[row].tiles[i] && sizes[i] <= left) return taken = sizes[i], rows[row].tiles[i];
}

}  // namespace convlab::CONVLAB_ISA::direct
