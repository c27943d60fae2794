// What `direct` asks of its kernels. Torch-free, and for kernels as well.
#pragma once
#include "cpu/conv2d/block/finish.h"
#include "cpu/conv2d/product.h"
#include "cpu/stub.h"

namespace convlab {
namespace direct {

// Every so many targets of a row, and where the first of them finds its taps in a row of the panel
struct ColumnPhase {
  Places targets;
  const int *taps, *places;
  int tap_count;
};

struct RowProduct {
  Product product;  // its columns have no classes: the zeros of the panel stand for them
  Axis vertical;
  RowPanel panel{};
  const ColumnPhase* phases = nullptr;
  int phase_count = 0;
  Filters filters{};
  int bundle = 1;  // groups whose source is brought into the panel at once
  int parts = 1;  // of a group's target channels, where there are few strips
  bool in_place = false;  // the source's rows are as good as a panel: at least a vector, no padding, no stride
  int slices = 1;  // of wgrad's strips
  Ending ending{};  // an activation that tiles make of their sums, if there is one
  int64_t finished_bytes = 0;  // of a strip's target that a block's ending makes something else of; 0: it is written
};

CONVLAB_INLINE int taps_of_phases(const RowProduct& rp) {
  int taps = 0;
  for (int i = 0; i < rp.phase_count; i++) taps += rp.phases[i].tap_count;
  return taps;
}

// Target channels of a tile: the largest of these that `left` of them fill comes next, of those that leave room for two
// vectors of columns among `sums` registers: a vector that is loaded for one row of sums costs as much as they do.
constexpr int kChannels[] = {8, 6, 4, 3, 2, 1};

CONVLAB_INLINE constexpr int channels_of_tile(int left, int sums) {
  if (sums < 2 * kChannels[0] && left > kChannels[1] && left % kChannels[1] == 2) return 4;  // lest two be left over
  for (int k : kChannels)
    if (k <= left && 2 * k <= sums) return k;
  return 1;
}

CONVLAB_INLINE constexpr int sums_of(const InstructionSet& set) { return set.tile_pixels * set.tile_vectors; }

struct Term {  // of the sums, for one channel of the source and one tap
  int64_t source, weights;  // offsets: from a slot's first element, and from the first weight of a target channel
};

struct Slot {  // a vector of targets
  int64_t source, target;
  int lanes;
};

// The memory that a thread works in, on vectors of `lanes` elements A
template <class A> struct Bench {
  Term* terms;  // of all classes of rows and phases of columns
  int64_t* first;  // of each of these, and one past the last: [classes phases + 1]
  Slot* slots;
  A* turned;  // a row of the source with its channels outermost
  A* panel;  // the source's rows
  char* target;  // a group's, for a block's ending

  template <class Memory> CONVLAB_INLINE Bench(Memory& memory, const RowProduct& rp, int lanes) {
    const Product& p = rp.product;
    const int channels = rp.bundle * p.depth;
    memory.take(terms, int64_t(p.depth) * taps_of_classes(p.rows) * taps_of_phases(rp));
    memory.take(first, p.rows.count * rp.phase_count + 1);
    memory.take(slots, int64_t(p.images_per_strip) * p.rows_per_strip *
                           ((p.columns.target + lanes - 1) / lanes + rp.phase_count));
    memory.take(turned, channels * round_up(p.columns.source, lanes) + lanes);
    memory.take(panel, int64_t(p.images_per_strip) * channels * p.rows.source * rp.panel.length() + lanes);
    memory.take(target, rp.finished_bytes);
  }
};

struct Step {  // a vector of dy and the vector of x that tap (0, 0) meets there; offsets in elements
  int dy, x;
};

// The rows of x, also outside, that `rows` rows of dy meet
CONVLAB_INLINE int rows_met(const Axis& a, int rows) { return (rows - 1) * a.stride + (a.kernel - 1) * a.dilation + 1; }

template <class A> struct WgradBench {
  int64_t* places;  // of the taps, in x
  Step* steps;
  A* sums;  // [width, depth R S, lanes]
  A *dy, *turned, *x;

  template <class Memory> CONVLAB_INLINE WgradBench(Memory& memory, const RowProduct& rp, int lanes) {
    const Product& p = rp.product;
    const int64_t taps = int64_t(p.depth) * p.rows.kernel * p.columns.kernel, row = round_up(p.columns.target, lanes),
                  images = p.images_per_strip;
    memory.take(places, taps);
    memory.take(steps, p.rows_per_strip * row / lanes);
    memory.take(sums, p.width * taps * lanes);
    memory.take(dy, images * p.width * p.rows_per_strip * row);
    memory.take(turned, p.depth * round_up(p.columns.source, lanes) + lanes);
    memory.take(x, images * p.depth * rows_met(rp.vertical, p.rows_per_strip) * rp.panel.length() + lanes);
  }
};

}  // namespace direct

// w -> packed, of the type of sums, with room for a vector behind it; transposed: [depth, columns] of each group ->
// [columns, depth]
CONVLAB_KERNEL(direct_pack, void(const Filters&, const void* w, bool transposed, void* packed));
// weights and bias: of the type of sums; as filters say, and [groups, width]. finish: or null, and then the target is
// written
CONVLAB_KERNEL(direct, void(const direct::RowProduct&, const void* source, const void* weights, const void* bias,
                            void* target, const Finish* finish, int64_t begin, int64_t end, char* scratch));
// partial [slices, groups, width, depth R S]
CONVLAB_KERNEL(direct_wgrad, void(const direct::RowProduct&, const void* dy, const void* x, void* partial,
                                  int64_t begin, int64_t end, char* scratch));

}  // namespace convlab
