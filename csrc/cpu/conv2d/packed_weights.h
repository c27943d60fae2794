// Weights [K, C/groups, R, S] <-> [groups, vectors, R, S, depth, L]: the L channels of a vector side by side, for each
// tap and each channel that the sum runs over. In forward and wgrad the lanes are k and the depth c, in dgrad the other
// way round. One call, one vector of channels.
#pragma once
#include "cpu/conv2d/product.h"
#include "cpu/simd/vec.h"

namespace convlab::CONVLAB_ISA {

constexpr int kPiecesAhead = 8, kRowsAhead = 16;  // asked for beforehand

// A piece of a vector's weights whose columns lie side by side in w: [lanes, columns]. Column j <-> row first + j %
// period * outer + j / period of the packed matrix.
struct FilterPiece {
  int64_t at;  // in w
  int columns, period;
  int64_t first, outer;
};

// The rows of a piece's columns, one after another: a division for each would take longer than what is copied
struct PackedRow {
  int64_t outer, first, row;
  int period, in_period = 0;

  explicit PackedRow(const FilterPiece& piece)
      : outer(piece.outer), first(piece.first), row(piece.first), period(piece.period) {}
  void next() {
    row += outer;
    if (++in_period == period) in_period = 0, row = ++first;
  }
};

template <class A, class T>
void columns_to_rows(const T* w, const FilterPiece& piece, int64_t lane_stride, int lanes, A* packed) {
  constexpr int L = kLanes<A>;
  PackedRow to(piece);
  const auto turn = [&](int j, auto whole) __attribute__((always_inline)) {
    const int left = whole ? L : piece.columns - j, rows = whole ? L : lanes;
    Vec<A> block[L];
#pragma GCC unroll 16
    for (int l = 0; l < L; l++) block[l] = l < rows ? load_some<A>(w + piece.at + l * lane_stride + j, left) : Vec<A>{};
    transpose<A>(block);
#pragma GCC unroll 16
    for (int l = 0; l < L; l++, to.next())
      if (l < left) store<A>(packed + to.row * L, block[l]);
  };
  int j = 0;
  for (; j + L <= piece.columns && lanes == L; j += L) turn(j, std::true_type());
  for (; j < piece.columns; j += L) turn(j, std::false_type());
}

// The same backwards, where the packed matrix is the sum of `slices`, in their order
template <class A, class T>
void rows_to_columns(const A* packed, int slices, int64_t slice, const FilterPiece& piece, T* w, int64_t lane_stride,
                     int lanes) {
  constexpr int L = kLanes<A>;
  PackedRow from(piece);
  const auto turn = [&](int j, auto whole) __attribute__((always_inline)) {
    const int left = whole ? L : piece.columns - j, rows = whole ? L : lanes;
    Vec<A> block[L];
#pragma GCC unroll 16
    for (int l = 0; l < L; l++, from.next()) {
      block[l] = l < left ? load<A>(packed + from.row * L) : Vec<A>{};
      for (int i = 1; i < slices && l < left; i++) block[l] += load<A>(packed + i * slice + from.row * L);
    }
    transpose<A>(block);
#pragma GCC unroll 16
    for (int l = 0; l < L; l++)
      if (l < rows) store_some<A>(w + piece.at + l * lane_stride + j, block[l], left);
  };
  int j = 0;
  for (; j + L <= piece.columns && lanes == L; j += L) turn(j, std::true_type());
  for (; j < piece.columns; j += L) turn(j, std::false_type());
}

// The pieces of a vector of channels, unless the lanes lie side by side themselves
inline int filter_pieces(const Filters& f) {
  return f.tap == 1 && f.depth_stride == f.R * f.S ? 1 : f.depth_stride == 1 ? f.R * f.S : f.depth;
}

inline FilterPiece filter_piece(const Filters& f, int i) {
  const int taps = f.R * f.S;
  if (f.tap == 1 && f.depth_stride == taps) return {0, f.depth * taps, taps, 0, f.depth};  // [lane, depth, R, S]
  if (f.depth_stride == 1) return {i * f.tap, f.depth, f.depth, int64_t(i) * f.depth, 1};  // [lane, R, S, depth]
  return {i * f.depth_stride, taps, taps, i, f.depth};  // [depth, lane, R, S]
}

// The vectors [begin, end) of all groups -> packed, from its start on
template <class T> void pack_weights(const Filters& f, const T* w, acc_t<T>* packed, int64_t begin, int64_t end) {
  using A = acc_t<T>;
  constexpr int L = kLanes<A>;
  const int vectors = (f.width + L - 1) / L, taps = f.R * f.S;
  for (int64_t i = begin; i < end; i++) {
    const int first = int(i % vectors) * L, lanes = f.width - first < L ? f.width - first : L;
    const T* from = w + i / vectors * f.group + first * f.lane;
    A* to = packed + (i - begin) * taps * f.depth * L;
    if (f.lane == 1)
      for (int t = 0; t < taps; t++)
        for (int d = 0; d < f.depth; d++, to += L) {
          const T* const row = from + t * f.tap + d * f.depth_stride;
          __builtin_prefetch(row + kRowsAhead * f.depth_stride);
          store<A>(to, load_some<A>(row, lanes));
        }
    else
      for (int j = 0; j < filter_pieces(f); j++) {
        // What the hardware does not foresee: sixteen rows at once, or jumps from page to page
        const bool rows = f.lane > f.depth_stride;
        const T* const ahead = from + (rows ? 0 : filter_piece(f, j + kPiecesAhead).at);
        for (int64_t i = 0; i < lanes * f.lane && !(rows && j); i += 64 / int(sizeof(T))) __builtin_prefetch(ahead + i);
        columns_to_rows<A>(from, filter_piece(f, j), f.lane, lanes, to);
      }
  }
}

// packed [slices, vectors, R, S, depth, L], slices `slice` apart -> w, the vectors [begin, end) of all groups
template <class T>
void unpack_weights(const Filters& f, const acc_t<T>* packed, int slices, int64_t slice, T* w, int64_t begin,
                    int64_t end) {
  using A = acc_t<T>;
  constexpr int L = kLanes<A>;
  const int vectors = (f.width + L - 1) / L;
  const int64_t vector = int64_t(f.R) * f.S * f.depth * L;
  for (int64_t i = begin; i < end; i++) {
    const int first = int(i % vectors) * L, lanes = f.width - first < L ? f.width - first : L;
    T* to = w + i / vectors * f.group + first * f.lane;
    for (int j = 0; j < filter_pieces(f); j++)
      rows_to_columns<A>(packed + (i - begin) * vector, slices, slice, filter_piece(f, j), to, f.lane, lanes);
  }
}

}  // namespace convlab::CONVLAB_ISA
