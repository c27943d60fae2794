// Convolution along rows, direct: vectors over neighbouring columns of the target, a tile of channels times vectors in
// registers, and weights one at a time.
//
// What it does    A strip's rows of the source are copied between zeros, which stand for the padding left and right,
//                 and taken apart by the stride, so that every load is a plain vector. Rows come sorted by the taps
//                 that reach them: nothing is spent on padding above and below. No channel has to fill a vector, so one
//                 input channel or three, or few per group, cost what they should. Weights are read where they lie
//                 (dgrad transposes them first): a tile walks through those of each of its channels.
// Against reference  vector registers, several sums at once, all cores; no test per multiply-add.
// What bounds it  loads that straddle cache lines, two accesses each: with one target channel (depthwise) they take
//                 most of the time. Rows shorter than a vector waste its lanes. With many channels `register_tiled`
//                 needs fewer loads.
#include "cpu/conv2d/block/ending.h"
#include "cpu/conv2d/direct/row_panels.h"
#include "cpu/conv2d/direct/tiles.h"

namespace convlab::CONVLAB_ISA::direct {

constexpr int64_t kLeastSlots = 8;  // of a block
constexpr int kTermsAtOnce = 3;  // divides the terms of images with three channels
constexpr int64_t kBlockBytes = 24 << 10;  // of source rows: half an L1 cache

// What a tile reads and writes; strides in elements
template <class A> struct Tiles {
  const Term* terms;
  int64_t term_count;
  bool in_order;  // weights of a term lie behind those of the term before
  const A* panel;
  int64_t weight_channel, target_channel;
  Ending ending;
  const A *weights = nullptr, *bias = nullptr;  // of the first channel
  A* target = nullptr;
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
    using Weights = ChannelAddresses<A, K>;
    // A step, whose weights lie `past` behind `w`
    const auto multiply = [&](const Term& term, const Weights& w, int past) __attribute__((always_inline)) {
      add_products<A>(
          sums, [&](int k) __attribute__((always_inline)) { return broadcast<A>(w.at(k)[past]); },
          [&](int v) __attribute__((always_inline)) { return load<A>(x[v] + term.source); });
    };
    const Term *t = at.terms + begin, *const last = at.terms + end;
    if constexpr (kSteps > 1 && K * V > 8)  // smaller tiles wait for their sums
      if (at.in_order) {
        Weights w(at.weights + t->weights, at.weight_channel);
        for (const Term* const few = last - (end - begin) % kTermsAtOnce; t != few; t += kTermsAtOnce) {
#pragma GCC unroll 8
          for (int i = 0; i < kTermsAtOnce; i++) multiply(t[i], w, i);
          w.move(kTermsAtOnce);
        }
      }
    for (; t != last; t++) multiply(*t, Weights(at.weights + t->weights, at.weight_channel), 0);
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
  activate<A>(at.ending, sums);
  A* to[V];
  bool whole = true;
#pragma GCC unroll 8
  for (int v = 0; v < V; v++) to[v] = at.target + slots[v].target, whole &= slots[v].lanes == kLanes<A>;
  const int64_t next = at.target_channel;
  const auto give = [&](auto put) __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int k = 0; k < K; k++)
#pragma GCC unroll 8
      for (int v = 0; v < V; v++) put(v, sums[k][v]), to[v] += next;
  };
  if (whole) give([&](int v, Vec<A> sum) __attribute__((always_inline)) { store<A>(to[v], sum); });
  else give([&](int v, Vec<A> sum) __attribute__((always_inline)) { store_some<A>(to[v], sum, slots[v].lanes); });
}

template <class A> using TileFunction = void (*)(const Tiles<A>&, const Slot*);

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

// What the terms and the panel of a bench are good for
struct Prepared {
  int64_t channel = -1, row = -1;  // the field's strides that the terms are for
  int64_t zeroed = 0;  // elements of the panel that are zero or have been written
};

template <class A> void find_terms(const RowProduct& rp, const Field<A>& field, const Bench<A>& b, Prepared& prepared) {
  if (prepared.channel == field.channel && prepared.row == field.row) return;
  prepared.channel = field.channel, prepared.row = field.row;
  const Product& p = rp.product;
  const Filters& f = rp.filters;
  Term* term = b.terms;
  int64_t* first = b.first;
  for (int rc = 0; rc < p.rows.count; rc++)
    for (int phase = 0; phase < rp.phase_count; phase++) {
      const TapClassView& vertical = p.rows.classes[rc];
      const ColumnPhase& horizontal = rp.phases[phase];
      *first++ = term - b.terms;
      // As weights lie, if they follow one another
      const int inner = f.depth_stride == 1 ? p.depth : 1;
      for (int c = 0; c < p.depth; c += inner)
        for (int i = 0; i < vertical.tap_count; i++)
          for (int j = 0; j < horizontal.tap_count; j++)
            for (int d = c; d < c + inner; d++)
              *term++ = {d * field.channel + vertical.offsets[i] * field.row + horizontal.places[j],
                         d * f.depth_stride + (vertical.taps[i] * p.columns.kernel + horizontal.taps[j]) * f.tap};
    }
  *first = term - b.terms;
}

// Where a group's target goes, in memory or on a bench
template <class T> struct Into {
  T* data;  // of this image and row
  int n0, row0;
  Strides strides;
};

// One strip's targets of one group, channels [first_channel, end_channel). weights and bias: the group's
template <class T>
void run_group(const RowProduct& rp, const Strip& s, const Field<acc_t<T>>& field, const acc_t<T>* weights,
               const acc_t<T>* bias, const Into<T>& target, int first_channel, int end_channel,
               const Bench<acc_t<T>>& b, Prepared& prepared) {
  using A = acc_t<T>;
  constexpr int L = kLanes<A>;
  const Product& p = rp.product;
  const Strides& strides = target.strides;
  // All channels of the target go over a block of slots while its source is in the L1 cache, or in the L2 where that
  // would be so few that weights came from further away too often
  const int64_t tile_slots = kSums / channels_of_tile(p.width, kSums),
                fit = kBlockBytes / (int64_t(p.depth) * p.rows.kernel * kVectorBytes);
  const int64_t block = round_up(fit > kLeastSlots ? fit : kLeastSlots, tile_slots);
  find_terms(rp, field, b, prepared);

  for (int rc = 0; rc < p.rows.count; rc++)
    for (int phase = 0; phase < rp.phase_count; phase++) {
      const TapClassView& vertical = p.rows.classes[rc];
      const Places& across = rp.phases[phase].targets;
      const int64_t* const first = b.first + rc * rp.phase_count + phase;
      int64_t count = 0;
      for (int n = s.n0; n < s.n1; n++)
        for (int i = 0; i < vertical.place_count; i++) {
          const Place& row = vertical.places[i];
          if (row.at < s.row0 || row.at >= s.row1) continue;
          const int64_t from =
              (n - field.n0) * field.image + (vertical.tap_count ? row.base - field.row0 : 0) * field.row;
          const int64_t to = (n - target.n0) * strides.n + (row.at - target.row0) * strides.h;
          for (int q = 0; q < across.count; q += L) {
            // A row's last vector begins in the one before: a whole one is stored at once, and in memory nothing lies behind
            if (across.count >= L && q + L > across.count) q = across.count - L;
            b.slots[count++] = {from + q, to + (across.at + int64_t(q) * across.at_step) * strides.w,
                                across.count - q < L ? across.count - q : L};
          }
        }

      const Term* const terms = b.terms + first[0];
      const int64_t term_count = first[1] - first[0];
      const bool in_order = term_count > 0 && terms[term_count - 1].weights - terms[0].weights == term_count - 1;
      for (int64_t begin = 0; begin < count; begin += block) {
        const int64_t end = begin + block < count ? begin + block : count;
        Tiles<A> at{terms, term_count, in_order, field.data, rp.filters.lane, strides.c, rp.ending};
        for (int k = first_channel, channels; k < end_channel; k += channels) {
          channels = channels_of_tile(end_channel - k, kSums);
          at.weights = weights + k * rp.filters.lane, at.bias = bias + k;
          T* const to = target.data + k * strides.c;
          int taken = 1;
          for (int64_t i = begin; i < end; i += taken) {
            const TileFunction<A> f =
                largest_tile<8, 6, 4, 3, 2, 1>(channels, end - i, taken, [](auto k, auto v) { return &tile<A, k, v>; });
            if constexpr (sizeof(T) == sizeof(A))
              if (strides.w == 1 && across.at_step == 1) {
                at.target = to;
                f(at, b.slots + i);
                continue;
              }
            spread<A>(f, at, b.slots + i, taken, channels, to, strides.c, across.at_step * strides.w);
          }
        }
      }
    }
}

// The pieces [begin, end): strips x bundles of groups x parts of the channels
template <class T>
void run(const RowProduct& rp, const T* source, const acc_t<T>* weights, const acc_t<T>* bias, T* target,
         const Finish* finish, int64_t begin, int64_t end, char* scratch) {
  using A = acc_t<T>;
  const Product& p = rp.product;
  const int bundles = (p.groups + rp.bundle - 1) / rp.bundle;
  Carver carver{scratch};
  const Bench<A> bench(carver, rp, kLanes<A>);
  Prepared prepared;

  for (int64_t piece = begin; piece < end; piece++) {
    const int part = int(piece % rp.parts), bundle = int(piece / rp.parts % bundles);
    const int first = bundle * rp.bundle, groups = first + rp.bundle < p.groups ? rp.bundle : p.groups - first;
    const int tile = channels_of_tile(p.width, kSums), tiles = (p.width + tile - 1) / tile;
    const int first_channel = tiles * part / rp.parts * tile,
              end_channel = part + 1 == rp.parts ? p.width : tiles * (part + 1) / rp.parts * tile;
    const Strip s = strip_of(p, piece / rp.parts / bundles);
    int first_row, rows;
    rows_reached(p, s, first_row, rows);
    Field<A> field = look<A>(rp, source + int64_t(first) * p.depth * p.source.c, s, groups * p.depth, first_row, rows,
                             bench.panel, bench.turned, prepared.zeroed);
    const int height = s.row1 - s.row0;
    for (int group = first; group < first + groups; group++, field.data += p.depth * field.channel) {
      const int64_t channel = int64_t(group) * p.width;
      const Into<T> into = finish ? Into<T>{reinterpret_cast<T*>(bench.target), s.n0, s.row0,
                                            strides_of(p.width, height, p.columns.target, finish->to.c == 1)}
                                  : Into<T>{target + channel * p.target.c, 0, 0, p.target};
      run_group<T>(rp, s, field, weights + group * rp.filters.group, bias + channel, into, first_channel, end_channel,
                   bench, prepared);
      for (int n = s.n0; n < s.n1 && finish; n++)
        finish_planes<A, T>(*finish, into.data + (n - s.n0) * into.strides.n + first_channel * into.strides.c,
                            into.strides, s.row0, height, n, channel + first_channel, end_channel - first_channel);
    }
  }
}

// w -> packed, of the type of sums; transposed, the weights that a target channel is multiplied with lie side by side
template <class T> void pack(const Filters& f, const T* w, bool transposed, acc_t<T>* packed) {
  const int rows = transposed ? f.depth : 1, columns = f.width * f.R * f.S * (transposed ? 1 : f.depth);
  for (int group = 0; group < f.groups; group++, w += f.group, packed += f.group)
    transpose_in(w, f.depth_stride, rows, columns, packed, rows);
}

}  // namespace convlab::CONVLAB_ISA::direct

CONVLAB_DEFINE(direct, direct::run)
CONVLAB_DEFINE(direct_pack, direct::pack)
