// Convolution along rows, direct: vectors over neighbouring columns of the target, a tile of channels times vectors in
// registers, and weights one at a time.
//
// What it does    A strip's rows of the source are copied between zeros, which stand for the padding left and right,
//                 and taken apart by the stride, so that every load is a plain vector. Rows come sorted by the taps
//                 that reach them: nothing is spent on padding above and below. No channel has to fill a vector, so one
//                 input channel or three, or few per group, cost what they should.
// Against reference  vector registers, several sums at once, all cores; no test per multiply-add.
// What bounds it  loads that straddle cache lines, two accesses each: with one target channel (depthwise) they take
//                 most of the time. Rows shorter than a vector waste its lanes. With many channels `register_tiled`
//                 needs fewer loads.
#pragma once
#include "cpu/isa/strips.h"
#include "cpu/simd/transpose.h"

namespace convlab::CONVLAB_ISA::direct {

struct Term {  // of the sums, for one channel of the source and one tap
  int64_t source, weights;  // offsets: from a slot's first element, and in vectors of K weights
};

struct Slot {  // a vector of targets
  int64_t source, target;
  int lanes;
};

constexpr int kSums = kTilePixels * kTileVectors;  // registers for sums
constexpr int kChannels[] = {8, 6, 4, 3, 2, 1};  // target channels of a tile: the largest that fits comes first
constexpr int kSlots[] = {8, 6, 4, 3, 2, 1};
constexpr int64_t kBlockBytes = 24 << 10;  // of source rows: half a first cache

// The largest tile of channels for `left` of them: the order in which weights are packed
inline int channels_of_tile(int left) {
  for (int k : kChannels)
    if (k <= left) return k;
  return 1;
}

// What a tile reads and writes; strides in elements
template <class A> struct Tiles {
  const Term* terms;
  int64_t term_count;
  const A* panel;
  const A *weights, *bias;  // [depth, R S, K], [K]
  A* target;
  int64_t target_channel;
};

// K target channels times V vectors
template <class A, int K, int V> void tile(const Tiles<A>& at, const Slot* slots) {
  Vec<A> sums[K][V], put_aside[K][V];
  bool any_aside = false;
#pragma GCC unroll 8
  for (int k = 0; k < K; k++)
#pragma GCC unroll 8
    for (int v = 0; v < V; v++) sums[k][v] = broadcast<A>(at.bias[k]);
  const A* x[V];
#pragma GCC unroll 8
  for (int v = 0; v < V; v++) {
    x[v] = at.panel + slots[v].source;
#pragma GCC unroll 8
    for (int k = 0; k < K; k++)
      if (at.term_count >= kTermsToPrefetch) __builtin_prefetch(at.target + k * at.target_channel + slots[v].target, 1);
  }
  for (int64_t begin = 0, end; begin < at.term_count; begin = end) {
    end = begin + kChunk < at.term_count ? begin + kChunk : at.term_count;
    for (int64_t t = begin; t < end; t++) {
      const A* const w = at.weights + at.terms[t].weights * K;
      Vec<A> row[V];
#pragma GCC unroll 8
      for (int v = 0; v < V; v++) row[v] = load<A>(x[v] + at.terms[t].source);
#pragma GCC unroll 8
      for (int k = 0; k < K; k++) {
        Vec<A> weight = broadcast<A>(w[k]);
        if (V > 1) keep(weight);
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) sums[k][v] += weight * row[v];
      }
    }
    if (end == at.term_count) break;
#pragma GCC unroll 8
    for (int k = 0; k < K; k++)
#pragma GCC unroll 8
      for (int v = 0; v < V; v++) {
        put_aside[k][v] = any_aside ? put_aside[k][v] + sums[k][v] : sums[k][v];
        sums[k][v] = Vec<A>{};
      }
    any_aside = true;
  }
  if (any_aside)
#pragma GCC unroll 8
    for (int k = 0; k < K; k++)
#pragma GCC unroll 8
      for (int v = 0; v < V; v++) sums[k][v] += put_aside[k][v];
#pragma GCC unroll 8
  for (int k = 0; k < K; k++)
#pragma GCC unroll 8
    for (int v = 0; v < V; v++)
      store_some<A>(at.target + k * at.target_channel + slots[v].target, sums[k][v], slots[v].lanes);
}

template <class A> using TileFunction = void (*)(const Tiles<A>&, const Slot*);

template <class A, int K, int V> constexpr TileFunction<A> tile_or_null() {
  if constexpr (K * V <= kSums) return &tile<A, K, V>;
  else return nullptr;
}

// The largest tile of K channels for up to `slots` slots; how many it takes goes to `taken`
template <class A, int K> TileFunction<A> tile_of(int64_t slots, int& taken) {
  constexpr TileFunction<A> all[] = {tile_or_null<A, K, 8>(), tile_or_null<A, K, 6>(), tile_or_null<A, K, 4>(),
                                     tile_or_null<A, K, 3>(), tile_or_null<A, K, 2>(), tile_or_null<A, K, 1>()};
  for (int i = 0; i < 6; i++)
    if (all[i] && kSlots[i] <= slots) {
      taken = kSlots[i];
      return all[i];
    }
  return nullptr;
}

template <class A> TileFunction<A> tile_of(int channels, int64_t slots, int& taken) {
  switch (channels) {
    case 8: return tile_of<A, 8>(slots, taken);
    case 6: return tile_of<A, 6>(slots, taken);
    case 4: return tile_of<A, 4>(slots, taken);
    case 3: return tile_of<A, 3>(slots, taken);
    case 2: return tile_of<A, 2>(slots, taken);
    default: return tile_of<A, 1>(slots, taken);
  }
}

// A row of the source -> its phases between zeros; the zeros are there already
template <class A, class T>
void take_row(const RowPanel& panel, const T* from, int64_t from_stride, int columns, A* to) {
  const int end = panel.phases * panel.phase_length - panel.left;
  if (columns > end) columns = end;
  if (panel.phases == 1) {
    to += panel.left;
    if (from_stride == 1) {
      int u = 0;
      for (; u + kLanes<A> <= columns; u += kLanes<A>) store<A>(to + u, load_as<A>(from + u));
      for (; u < columns; u++) to[u] = A(from[u]);
    } else {
      for (int u = 0; u < columns; u++) to[u] = A(from[u * from_stride]);
    }
    return;
  }
  int taken = 0;
  if (panel.phases == 2 && from_stride == 1) {  // even and odd elements, two vectors at a time
    using all = indices_to<kLanes<A>>;
    A* const even = to + panel.left % 2 * panel.phase_length + panel.left / 2;
    A* const odd = to + (panel.left + 1) % 2 * panel.phase_length + (panel.left + 1) / 2;
    for (; taken + 2 * kLanes<A> <= columns; taken += 2 * kLanes<A>) {
      const Vec<A> a = load_as<A>(from + taken), b = load_as<A>(from + taken + kLanes<A>);
      store<A>(even + taken / 2, unzip<A, 0>(a, b, all{}));
      store<A>(odd + taken / 2, unzip<A, 1>(a, b, all{}));
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

// The source rows [first, first + rows) of a strip's images and of so many channels -> panel [images, channels, rows,
// length]. Rows outside the source stay zero. turned: a row with its channels outermost, where they lie innermost;
// elements apart: turned_length
template <class A, class T>
void take_rows(const RowProduct& rp, const T* source, const Strip& s, int channels, int first, int rows, A* panel,
               A* turned) {
  const Product& p = rp.product;
  const int64_t length = rp.panel.length(), turned_length = round_up(p.columns.source, kLanes<A>);
  for (int n = s.n0; n < s.n1; n++)
    for (int row = 0; row < rows; row++) {
      const int h = first + row;
      const T* const from = source + n * p.source.n + h * p.source.h;
      const bool inside = h >= 0 && h < p.rows.source, turn = p.source.c == 1 && p.source.w != 1;
      if (inside && turn) transpose_in(from, p.source.w, p.columns.source, channels, turned, turned_length);
      for (int c = 0; c < channels; c++) {
        A* const to = panel + ((int64_t(n - s.n0) * channels + c) * rows + row) * length;
        if (!inside)
          for (int i = 0; i < length; i++) to[i] = 0;
        else if (turn) take_row(rp.panel, turned + c * turned_length, 1, p.columns.source, to);
        else take_row(rp.panel, from + c * p.source.c, p.source.w, p.columns.source, to);
      }
    }
}

// A tile whose targets do not lie side by side, or are of another type
template <class A, class T>
void spread(TileFunction<A> f, Tiles<A> at, const Slot* slots, int count, int channels, T* to, int64_t channel,
            int64_t step) {
  constexpr int L = kLanes<A>;
  A sums[kSums * L];
  Slot near[8] = {};
  for (int v = 0; v < count; v++) near[v] = {slots[v].source, v * L, L};
  at.target = sums, at.target_channel = count * L;
  f(at, near);
  for (int v = 0; v < count; v++) {
    T* const first = to + slots[v].target;
    if (channel == 1) {  // the channels of a pixel lie side by side; a tile may have more of them than a vector
      for (int k = 0; k < channels; k += L)
        transpose_some(sums + k * at.target_channel + v * L, at.target_channel, channels - k < L ? channels - k : L,
                       slots[v].lanes, first + k, step);
    } else {
      for (int k = 0; k < channels; k++)
        for (int l = 0; l < slots[v].lanes; l++)
          first[k * channel + l * step] = T(sums[k * at.target_channel + v * L + l]);
    }
  }
}

// A strip's rows of the source, in a panel or in place; strides in elements
template <class A> struct Field {
  const A* data;
  int64_t image, channel, row;
  int n0, row0;  // data is at this image and row
};

template <class A, class T>
Field<A> look(const RowProduct& rp, const T* source, const Strip& s, int channels, A* panel, A* turned,
              int64_t& zeroed) {
  const Product& p = rp.product;
  if constexpr (sizeof(T) == sizeof(A))
    if (rp.in_place) return {source, p.source.n, p.source.c, p.source.h, 0, 0};
  int first, rows;
  rows_reached(p, s, first, rows);
  const int64_t length = rp.panel.length(), channel = rows * length, image = channels * channel;
  for (; zeroed < image * (s.n1 - s.n0) + kLanes<A>; zeroed++) panel[zeroed] = 0;
  take_rows(rp, source, s, channels, first, rows, panel, turned);
  return {panel, image, channel, length, s.n0, first};
}

// The memory that a thread works in
template <class A> struct Bench {
  Term* terms;  // of all classes of rows and phases of columns
  int64_t* first;  // of each of these, and one past the last: [classes phases + 1]
  int64_t channel, row;  // the field's strides that the terms are for
  Slot* slots;
  A *turned, *panel;
  int64_t zeroed;  // elements of the panel that are zero or have been written
};

template <class A> void find_terms(const RowProduct& rp, const Field<A>& field, Bench<A>& b) {
  if (b.channel == field.channel && b.row == field.row) return;
  b.channel = field.channel, b.row = field.row;
  const Product& p = rp.product;
  const int64_t kernel_taps = int64_t(p.rows.kernel) * p.columns.kernel;
  Term* term = b.terms;
  int64_t* first = b.first;
  for (int rc = 0; rc < p.rows.count; rc++)
    for (int phase = 0; phase < rp.phase_count; phase++) {
      const TapClassView& vertical = p.rows.classes[rc];
      const ColumnPhase& horizontal = rp.phases[phase];
      *first++ = term - b.terms;
      for (int c = 0; c < p.depth; c++)
        for (int i = 0; i < vertical.tap_count; i++)
          for (int j = 0; j < horizontal.tap_count; j++)
            *term++ = {c * field.channel + vertical.offsets[i] * field.row + horizontal.places[j],
                       c * kernel_taps + int64_t(vertical.taps[i]) * p.columns.kernel + horizontal.taps[j]};
    }
  *first = term - b.terms;
}

// One strip's targets of one group. weights [tiles of channels, depth, R S, channels]; bias [width]
template <class T>
void run_group(const RowProduct& rp, const Strip& s, const Field<acc_t<T>>& field, const acc_t<T>* weights,
               const acc_t<T>* bias, T* target, Bench<acc_t<T>>& b) {
  using A = acc_t<T>;
  constexpr int L = kLanes<A>;
  const Product& p = rp.product;
  const int64_t kernel_taps = int64_t(p.rows.kernel) * p.columns.kernel;
  // All channels of the target go over a block of slots while its source is in the first cache
  const int64_t tile_slots = kSums / channels_of_tile(p.width),
                fit = kBlockBytes / (int64_t(p.depth) * p.rows.kernel * kVectorBytes);
  const int64_t block = fit > tile_slots ? fit / tile_slots * tile_slots : tile_slots;
  find_terms(rp, field, b);

  for (int rc = 0; rc < p.rows.count; rc++)
    for (int phase = 0; phase < rp.phase_count; phase++) {
      const TapClassView& vertical = p.rows.classes[rc];
      const ColumnPhase& horizontal = rp.phases[phase];
      const int64_t* const first = b.first + rc * rp.phase_count + phase;
      int64_t count = 0;
      for (int n = s.n0; n < s.n1; n++)
        for (int i = 0; i < vertical.place_count; i++) {
          const Place& row = vertical.places[i];
          if (row.at < s.row0 || row.at >= s.row1) continue;
          const int64_t from =
              (n - field.n0) * field.image + (vertical.tap_count ? row.base - field.row0 : 0) * field.row;
          const int64_t to = n * p.target.n + row.at * p.target.h;
          for (int q = 0; q < horizontal.count; q += L)
            b.slots[count++] = {from + q, to + (horizontal.first + int64_t(q) * horizontal.step) * p.target.w,
                                horizontal.count - q < L ? horizontal.count - q : L};
        }

      for (int64_t begin = 0; begin < count; begin += block) {
        const int64_t end = begin + block < count ? begin + block : count;
        Tiles<A> at{b.terms + first[0], first[1] - first[0], field.data, weights, bias, nullptr, p.target.c};
        for (int k = 0, channels; k < p.width;
             k += channels, at.weights += channels * p.depth * kernel_taps, at.bias += channels) {
          channels = channels_of_tile(p.width - k);
          T* const to = target + k * p.target.c;
          int taken = 1;
          for (int64_t i = begin; i < end; i += taken) {
            const TileFunction<A> f = tile_of<A>(channels, end - i, taken);
            if constexpr (sizeof(T) == sizeof(A))
              if (p.target.w == 1 && horizontal.step == 1) {
                at.target = to;
                f(at, b.slots + i);
                continue;
              }
            spread<A>(f, at, b.slots + i, taken, channels, to, p.target.c, horizontal.step * p.target.w);
          }
        }
      }
    }
}

// The pieces [begin, end): strips x bundles of groups
template <class T>
void run(const RowProduct& rp, const T* source, const acc_t<T>* weights, const acc_t<T>* bias, T* target, int64_t begin,
         int64_t end, char* scratch) {
  using A = acc_t<T>;
  constexpr int L = kLanes<A>;
  const Product& p = rp.product;
  const int bundles = (p.groups + rp.bundle - 1) / rp.bundle;
  const int64_t kernel_taps = int64_t(p.rows.kernel) * p.columns.kernel;
  Carver carver{scratch};
  Bench<A> bench{};
  bench.terms = carver.take<Term>(int64_t(p.depth) * taps_of_classes(p.rows) * taps_of_phases(rp));
  bench.first = carver.take<int64_t>(p.rows.count * rp.phase_count + 1);
  bench.channel = bench.row = -1;
  bench.slots = carver.take<Slot>(int64_t(p.images_per_strip) * p.rows_per_strip *
                                  ((p.columns.target + L - 1) / L + rp.phase_count));
  bench.turned = carver.take<A>(rp.bundle * p.depth * round_up(p.columns.source, L) + L);
  bench.panel = carver.take<A>(0);

  for (int64_t piece = begin; piece < end; piece++) {
    const int first = int(piece % bundles) * rp.bundle,
              groups = first + rp.bundle < p.groups ? rp.bundle : p.groups - first;
    const Strip s = strip_of(p, piece / bundles);
    Field<A> field = look<A>(rp, source + int64_t(first) * p.depth * p.source.c, s, groups * p.depth, bench.panel,
                             bench.turned, bench.zeroed);
    for (int group = first; group < first + groups; group++, field.data += p.depth * field.channel)
      run_group<T>(rp, s, field, weights + int64_t(group) * p.width * p.depth * kernel_taps,
                   bias + int64_t(group) * p.width, target + int64_t(group) * p.width * p.target.c, bench);
  }
}

}  // namespace convlab::CONVLAB_ISA::direct
