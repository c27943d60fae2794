// What direct's kernels share: a strip's rows of the source, copied between zeros and taken apart by the stride; and
// tiles by size.
#pragma once
#include "cpu/conv2d/direct/direct.h"
#include "cpu/conv2d/strips.h"
#include "cpu/simd/transpose.h"

namespace convlab::CONVLAB_ISA::direct {

using namespace convlab::direct;

// A row of the source -> its phases between zeros; the zeros are there already
template <class A, class T>
void take_row(const RowPanel& panel, const T* from, int64_t from_stride, int columns, A* to) {
  const int end = panel.phases * panel.phase_length - panel.left;
  if (columns > end) columns = end;
  if (panel.phases == 1) {
    to += panel.left;
    if (from_stride == 1) return copy_row(from, columns, to);
    for (int u = 0; u < columns; u++) to[u] = A(from[u * from_stride]);
    return;
  }
  int taken = 0;
  if (panel.phases == 2 && from_stride == 1) {  // even and odd elements, two vectors at a time
    A* const even = to + panel.left % 2 * panel.phase_length + panel.left / 2;
    A* const odd = to + (panel.left + 1) % 2 * panel.phase_length + (panel.left + 1) / 2;
    for (; taken + 2 * kLanes<A> <= columns; taken += 2 * kLanes<A>) {
      const Vec<A> a = load_as<A>(from + taken), b = load_as<A>(from + taken + kLanes<A>);
      store<A>(even + taken / 2, unzip<A, 0>(a, b));
      store<A>(odd + taken / 2, unzip<A, 1>(a, b));
    }
  }
  for (int phase = 0; phase < panel.phases; phase++) {
    int u = (phase - panel.left) % panel.phases;  // the first source element of this phase
    if (u < 0) u += panel.phases;
    if (u < taken) u += (taken - u + panel.phases - 1) / panel.phases * panel.phases;
    A* row = to + phase * panel.phase_length + (u + panel.left) / panel.phases;
    for (; u < columns; u += panel.phases) *row++ = A(from[u * from_stride]);
  }
}

// A strip's rows of the source, in a panel or in place; strides in elements
template <class A> struct Field {
  const A* data;
  int64_t image, channel, row;
  int n0, row0;  // data is at this image and row
};

// The source rows [first, first + rows), also outside, of a strip's images and of so many channels: in place, or copied
// to a panel [images, channels, rows, length], of which `zeroed` elements are zero or have been written. turned: a row
// with its channels outermost, where they lie innermost.
template <class A, class T>
Field<A> look(const RowProduct& rp, const T* source, const Strip& s, int channels, int first, int rows, A* panel,
              A* turned, int64_t& zeroed) {
  const Product& p = rp.product;
  if constexpr (sizeof(T) == sizeof(A))
    if (rp.in_place) return {source, p.source.n, p.source.c, p.source.h, 0, 0};
  const int64_t length = rp.panel.length(), channel = rows * length, image = channels * channel,
                turned_length = round_up(p.columns.source, kLanes<A>);
  for (; zeroed < image * (s.n1 - s.n0) + kLanes<A>; zeroed++) panel[zeroed] = 0;
  // As memory has them: the rows of a channel one after another, or all channels of a row
  const bool turn = p.source.c == 1 && p.source.w != 1;
  const int outer = turn ? rows : channels, inner = turn ? channels : rows;
  for (int n = s.n0; n < s.n1; n++)
    for (int i = 0; i < outer; i++)
      for (int j = 0; j < inner; j++) {
        const int row = turn ? i : j, c = turn ? j : i, h = first + row;
        const T* const from = source + n * p.source.n + h * p.source.h;
        const bool inside = h >= 0 && h < p.rows.source;
        A* const to = panel + (n - s.n0) * image + c * channel + row * length;
        if (inside && turn && c == 0) transpose_in(from, p.source.w, p.columns.source, channels, turned, turned_length);
        if (!inside)
          for (int k = 0; k < length; k++) to[k] = 0;
        else if (turn) take_row(rp.panel, turned + c * turned_length, 1, p.columns.source, to);
        else take_row(rp.panel, from + c * p.source.c, p.source.w, p.columns.source, to);
      }
  return {panel, image, channel, length, s.n0, first};
}

constexpr int kSums = kTilePixels * kTileVectors;  // registers for sums

// Where K channels lie, `channel` elements apart: every third has its address in a register, which has room for two more
template <class A, int K> struct Channels {
  const A* every_third[(K + 2) / 3];
  int64_t channel;

  CONVLAB_INLINE Channels(const A* first, int64_t channel) : every_third{first}, channel(channel) {
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
