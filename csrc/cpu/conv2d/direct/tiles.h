// Register tiles of direct's kernels, K channels times V vectors: their products, and tiles by size.
#pragma once
#include "cpu/conv2d/direct/direct.h"
#include "cpu/simd/vec.h"

namespace convlab::CONVLAB_ISA::direct {

using namespace convlab::direct;

constexpr int kSums = kTilePixels * kTileVectors;  // registers for sums

// Where K channels lie, `channel` elements apart: every third has its address in a register, which has room for two more
template <class A, int K> struct ChannelAddresses {
  const A* every_third[(K + 2) / 3];
  int64_t channel;

  CONVLAB_INLINE ChannelAddresses(const A* first, int64_t channel) : every_third{first}, channel(channel) {
#pragma GCC unroll 3
    for (int i = 1; i < (K + 2) / 3; i++) every_third[i] = every_third[i - 1] + 3 * channel, keep(every_third[i]);
  }
  CONVLAB_INLINE const A* at(int k) const { return every_third[k / 3] + k % 3 * channel; }
  CONVLAB_INLINE void move(int elements) {
#pragma GCC unroll 3
    for (int i = 0; i < (K + 2) / 3; i++) every_third[i] += elements, keep(every_third[i]);
  }
};

// sums[k][v] += first(k) * second(v). The fewer of both stay in registers, and each of the others meets them all: of one
// alone a multiply-add loads itself.
template <class A, int K, int V, class First, class Second>
CONVLAB_INLINE void add_products(Vec<A> (&sums)[K][V], First first, Second second) {
  constexpr bool by_first = K < V;
  constexpr int kHeld = by_first ? K : V, kOthers = by_first ? V : K;
  Vec<A> held[kHeld];
#pragma GCC unroll 9
  for (int i = 0; i < kHeld; i++) held[i] = by_first ? first(i) : second(i);
#pragma GCC unroll 9
  for (int j = 0; j < kOthers; j++) {
    Vec<A> other = by_first ? second(j) : first(j);
    if (kHeld > 1) keep(other);
#pragma GCC unroll 9
    for (int i = 0; i < kHeld; i++) {
      Vec<A>& sum = sums[by_first ? i : j][by_first ? j : i];
      if (kHeld > 1) add_product<A>(sum, held[i], other);
      else sum += held[i] * other;
    }
  }
}

template <int N> using number = std::integral_constant<int, N>;

// f(K, V), whose sums are K times V vectors, where these fit
template <class F, int K, int V> constexpr auto tile_or_null() -> decltype(F()(number<1>(), number<1>())) {
  if constexpr (K * V <= kSums) return F()(number<K>(), number<V>());
  else return nullptr;
}

// Of the tiles f(K, V) of K = `channels` channels, one of kChannels, the largest that up to `left` fill; V goes to
// `taken`. The tables are static: a local one would be copied to the stack by every call.
template <int... V, class F> auto largest_tile(int channels, int64_t left, int& taken, F) {
  using Tile = decltype(F()(number<1>(), number<1>()));
  static constexpr int sizes[] = {V...};
  static constexpr Tile tiles[][sizeof...(V)] = {{tile_or_null<F, 8, V>()...}, {tile_or_null<F, 6, V>()...},
                                                 {tile_or_null<F, 4, V>()...}, {tile_or_null<F, 3, V>()...},
                                                 {tile_or_null<F, 2, V>()...}, {tile_or_null<F, 1, V>()...}};
  int row = 0;
  while (kChannels[row] != channels) row++;
  for (int i = 0;; i++)
    if (tiles[row][i] && sizes[i] <= left) return taken = sizes[i], tiles[row][i];
}

}  // namespace convlab::CONVLAB_ISA::direct
