// Rectangles of places; and, with sixteen registers, depthwise convolution over them with up to nine taps' weights in
// registers, or in wgrad their sums.
//
// What it does    A multiply-add loads x itself. A vector of channels meets a rectangle of places before the next vector
//                 does.
// Against tiles   (of triples, which share loads of x) 1.5 to 1.7 instructions for a multiply-add, not 2 to 3: with sixteen
//                 registers tiles have few places, and weights, or sums, come and go too often.
// What bounds it  loads, nine for nine multiply-adds and one of dy or a store, and memory.
#pragma once
#include "cpu/conv2d/block/ending.h"
#include "cpu/conv2d/depthwise/strip_sources.h"

namespace convlab::CONVLAB_ISA::depthwise {

constexpr int kPlacesAtOnce = 112;  // of several vectors of channels, read side by side: they stay in the L1 or L2
constexpr int kPlacesAhead = 8;  // that the target is asked for

struct Rectangle {
  int rows, columns;
  int64_t x_row, x_column, y_row, y_column;  // elements from one to the next
};

// f(taps, rectangle, x, y) for all of a strip; a rectangle's columns are the places along which taps come in triples
template <class A, class Y, class F>
void each_rectangle(const Depthwise& d, const Strip& s, const Lens<const A>& x, const Lens<Y>& y, const F& f) {
  for (const Block* block = d.blocks; block < d.blocks + d.block_count; block++) {
    const Places r = clipped(block->rows, s.row0, s.row1), &c = block->columns;
    const Rectangle all{
        r.count, c.count, r.from_step * x.row, c.from_step * x.column, r.at_step * y.row, c.at_step * y.column};
    Rectangle part = all;
    if (block->down) part = {all.columns, all.rows, all.x_column, all.x_row, all.y_column, all.y_row};
    const int rows = part.columns > 0 ? part.rows : 0, columns = part.columns;
    for (int row = 0; row < rows; row += part.rows) {
      part.rows = next_tile(rows - row, columns < kPlacesAtOnce ? kPlacesAtOnce / columns : 1);
      for (int column = 0; column < columns; column += part.columns) {
        part.columns = next_tile(columns - column, kPlacesAtOnce);
        f(block->taps, part, x.at(r.from, c.from) + row * part.x_row + column * part.x_column,
          y.at(r.at, c.at) + row * part.y_row + column * part.y_column);
      }
    }
  }
}

// target = bias + sum over T taps of x times weights [R S, L], at the places of a rectangle
template <class A, int T>
void forward_taps(const Tap* taps, const Rectangle& at, const Ending& ending, const A* x, const A* weights,
                  const A* bias, A* target) {
  constexpr int L = kLanes<A>;
  int64_t from[T + 1];  // there may be no taps
  Vec<A> w[T + 1];
#pragma GCC unroll 9
  for (int t = 0; t < T; t++) from[t] = taps[t].source, w[t] = load<A>(weights + taps[t].weights * L);
  const Vec<A> start = load<A>(bias);
  const auto places = [&](auto count, const A* x, A* to) __attribute__((always_inline)) {
    constexpr int M = count;
    Vec<A> sums[M];
#pragma GCC unroll 4
    for (int m = 0; m < M; m++, x += at.x_column) {
      keep(x);
      __builtin_prefetch(to + (m + kPlacesAhead) * at.y_column, 1);
      sums[m] = start;
#pragma GCC unroll 9
      for (int t = 0; t < T; t++) sums[m] += w[t] * load<A>(x + from[t]);
    }
    activate<A>(ending, sums);
#pragma GCC unroll 4
    for (int m = 0; m < M; m++, to += at.y_column) store<A>(to, sums[m]);
  };
  constexpr int kMost = 4;
  for (int row = 0; row < at.rows; row++, x += at.x_row, target += at.y_row) {
    const A* near = x;
    A* to = target;
    int left = at.columns;
    for (; left >= kMost; left -= kMost, near += kMost * at.x_column, to += kMost * at.y_column)
      places(std::integral_constant<int, kMost>(), near, to);
    for (; left > 0; left--, near += at.x_column, to += at.y_column) places(std::integral_constant<int, 1>(), near, to);
  }
}

// sums [R S, L] += over the places of a rectangle: dy times x, for T taps. A multiply-add loads x itself, and dy is loaded
// once for all. Few taps have two sums each, so that none waits for itself.
template <class A, int T> void wgrad_taps(const Tap* taps, const Rectangle& at, const A* x, const A* dy, A* sums) {
  constexpr int L = kLanes<A>, kSets = T > 6 ? 1 : 2;
  int64_t from[T];
  Vec<A> acc[kSets][T] = {};
#pragma GCC unroll 9
  for (int t = 0; t < T; t++) from[t] = taps[t].source, acc[0][t] = load<A>(sums + taps[t].weights * L);
  const auto place = [&](int set, const A* x, const A* dy) __attribute__((always_inline)) {
    keep(x);
    Vec<A> grad = load<A>(dy);
    keep(grad);
#pragma GCC unroll 9
    for (int t = 0; t < T; t++) acc[set][t] += grad * load<A>(x + from[t]);
  };
  for (int row = 0; row < at.rows; row++, x += at.x_row, dy += at.y_row) {
    const A *near = x, *grad = dy;
    int left = at.columns;
    for (; left >= 2; left -= 2, near += 2 * at.x_column, grad += 2 * at.y_column)
      place(0, near, grad), place(kSets - 1, near + at.x_column, grad + at.y_column);
    if (left) place(0, near, grad);
  }
#pragma GCC unroll 9
  for (int t = 0; t < T; t++) {
    if (kSets > 1) acc[0][t] += acc[kSets - 1][t];
    store<A>(sums + taps[t].weights * L, acc[0][t]);
  }
}

// The same for all taps, which are singles, and `vectors` of channels, one behind another from `first` on
template <class A>
void wgrad_singles(const Depthwise& d, const Taps& taps, int64_t first, int vectors, const Rectangle& at, const A* x,
                   const A* dy, A* sums) {
  const int64_t parts = (taps.singles + kTapsAtOnce - 1) / kTapsAtOnce;
  for (int64_t part = 0, begin = 0, end; part < parts; part++, begin = end) {
    end = taps.singles * (part + 1) / parts;
    const auto f = of_size<kTapsAtOnce>(int(end - begin), [](auto t) { return &wgrad_taps<A, t>; });
    each_vector(d, first, vectors, sums,
                [&](int64_t channel, A* sums) { f(taps.list + begin, at, x + channel, dy + channel, sums); });
  }
}

}  // namespace convlab::CONVLAB_ISA::depthwise
