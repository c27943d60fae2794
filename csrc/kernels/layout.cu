// Changing the layout of a tensor: NCHW to channels_last, and back, of elements of 1, 2, 4 or 8 bytes.
//
//   to_channels_last   to[n, pixel, c] = from[n, c, pixel]          else   to[n, c, pixel] = from[n, pixel, c]
//
// What it does    a block has a tile of channels x pixels, or of several images where these are small, 2048 elements:
//                 loads them along the dimension that lies side by side in `from`, eight a thread at once, and stores them
//                 along the one that does in `to`. Both cross shared memory free of bank conflicts, because the channels
//                 of a pixel are permuted there by an exclusive or. All sizes of a tile are powers of two, its channels
//                 the most of 32 and less that the tensor's fill best: three channels are four, and a quarter of the
//                 lanes idle.
// In words        elements of 2 and 4 bytes, of 16 channels and pixels or more: tiles of 64 x 64, or 64 x 32. Of 2 bytes
//                 a thread loads two neighbours of two rows, exchanges two of the four, and keeps two words of what are
//                 neighbours in `to`: every access is of 4 bytes, but where a dimension is odd. Elements one by one would
//                 take more instructions than memory takes time.
// What bounds it  memory: each element is read and written once.
// What is counted  by the simulator; tools/kernel_notes.py writes it here, and says how to read it
//                              x   sectors   at least   conflicts
//   LeNet C3    both ways   2.00      3.46       3.26        1.00
//   ResNet-20   both ways   2.00      4.00       4.00        1.00
#include "kernels/layout.h"

#include <type_traits>

#include "device/divisor.h"
#include "device/warp_lanes.h"

namespace convlab {
namespace {

constexpr int kThreads = 256, kEach = 8, kLogSlots = 11, kSlots = 1 << kLogSlots;
static_assert(kThreads * kEach == kSlots);
constexpr int kMostChannels = 5, kLeastPixels = 5;  // of a tile, as powers of two: a warp lies along 32 pixels

// A tile's sizes as powers of two, and how tiles cover the tensor
struct LayoutTiles {
  long long images, pixels;
  int C, log_channels, log_pixels;
  Divisor across, along;  // tiles of all channels, and of all pixels
};

struct LayoutElement {
  int image, channel, pixel;  // of the tile
};

// Element i of a tile, in the order of NCHW or of channels_last
template <bool kChannelsLast> __device__ __forceinline__ LayoutElement element(const LayoutTiles& t, int i) {
  const int channels = (1 << t.log_channels) - 1, pixels = (1 << t.log_pixels) - 1;
  const int image = i >> (t.log_channels + t.log_pixels);
  if (kChannelsLast) return {image, i & channels, i >> t.log_channels & pixels};
  return {image, i >> t.log_pixels & channels, i & pixels};
}

// Where it is in shared memory: 32 pixels of a channel lie in different banks, and so do 32 neighbours of a
// channels_last tensor. Of 8 bytes, half a warp's do.
template <int bytes> __device__ __forceinline__ int slot(const LayoutTiles& t, const LayoutElement& e) {
  constexpr int kBanks = bytes == 8 ? 4 : 5;
  const int bits = min(t.log_channels, kBanks), swizzle = (e.pixel << bits >> kBanks) & ((1 << bits) - 1);
  return (((e.image << t.log_pixels) + e.pixel) << t.log_channels) + (e.channel ^ swizzle);
}

// grid: a block a tile
template <class U, bool kToChannelsLast>
__global__ void __launch_bounds__(kThreads)
    change_layout_kernel(LayoutTiles t, const U* __restrict__ from, U* __restrict__ to) {
  using Slot = std::conditional_t<(sizeof(U) < 4), unsigned, U>;  // lanes of one bank would take turns
  SHARED(Slot, tile, [kSlots]);
  const unsigned rest = t.across.quotient(blockIdx.x), group = t.along.quotient(rest);
  const int channel0 = int(blockIdx.x - rest * t.across.by) << t.log_channels;
  const long long pixel0 = (long long)(rest - group * t.along.by) << t.log_pixels;
  const int log_images = kLogSlots - t.log_channels - t.log_pixels;
  const long long image0 = (long long)group << log_images;
  const auto inside = [&](const LayoutElement& e) {
    return image0 + e.image < t.images && channel0 + e.channel < t.C && pixel0 + e.pixel < t.pixels;
  };
  const auto index = [&](const LayoutElement& e, bool channels_last) {
    const long long n = image0 + e.image, c = channel0 + e.channel, pixel = pixel0 + e.pixel;
    return channels_last ? (n * t.pixels + pixel) * t.C + c : (n * t.C + c) * t.pixels + pixel;
  };

  U values[kEach];
#pragma unroll
  for (int i = 0; i < kEach; i++) {
    const LayoutElement e = element<!kToChannelsLast>(t, i * kThreads + int(threadIdx.x));
    if (inside(e)) values[i] = from[index(e, !kToChannelsLast)];
  }
#pragma unroll
  for (int i = 0; i < kEach; i++) {
    const LayoutElement e = element<!kToChannelsLast>(t, i * kThreads + int(threadIdx.x));
    if (inside(e)) tile[slot<sizeof(Slot)>(t, e)] = Slot(values[i]);
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kEach; i++) {
    const LayoutElement e = element<kToChannelsLast>(t, i * kThreads + int(threadIdx.x));
    if (inside(e)) to[index(e, kToChannelsLast)] = U(tile[slot<sizeof(Slot)>(t, e)]);
  }
}

// ---- elements of 2 and 4 bytes, in words ----

constexpr int kUnits = 32, kColumns = 64, kWarps = kThreads / kWarpLanes, kUnitsEach = kUnits / kWarps;

// from [images, rows, columns] -> to [images, columns, rows]
struct Transposition {
  long long images, rows, columns;
  Divisor across, along;  // tiles of all rows, and of all columns
};

// Elements i and i + 1 of a line of `size`, the first in the low half; even: the line begins at a multiple of 4 bytes.
template <bool kEven> __device__ __forceinline__ unsigned load_pair(const uint16_t* line, int i, int size) {
  if constexpr (kEven) return i < size ? *reinterpret_cast<const unsigned*>(line + i) : 0u;
  const unsigned low = i < size ? line[i] : 0u, high = i + 1 < size ? line[i + 1] : 0u;
  return low | high << 16;
}
template <bool kEven> __device__ __forceinline__ void store_pair(uint16_t* line, int i, int size, unsigned pair) {
  if constexpr (kEven) {
    if (i < size) *reinterpret_cast<unsigned*>(line + i) = pair;
  } else {
    if (i < size) line[i] = uint16_t(pair);
    if (i + 1 < size) line[i + 1] = uint16_t(pair >> 16);
  }
}

// grid: a block a tile, of 64 columns and 32 units: a row of 4-byte elements, or two of 2 bytes. A thread loads two words
// of a unit, which are or become one of each of two columns; word (column, unit) lies where an exclusive or has the 32 of
// a warp in different banks, both times.
template <class U, bool kEvenRows, bool kEvenColumns>
__global__ void __launch_bounds__(kThreads)
    transpose_kernel(Transposition t, const U* __restrict__ from, U* __restrict__ to) {
  constexpr bool kTwo = sizeof(U) == 2;
  constexpr int kRows = kTwo ? 2 : 1, kNext = kTwo ? 1 : kWarpLanes;  // of a unit; from a thread's column to its other
  SHARED(unsigned, tile, [kColumns][kUnits]);
  const unsigned rest = t.across.quotient(blockIdx.x), image = t.along.quotient(rest);
  const int lane = int(threadIdx.x) % kWarpLanes, warp = int(threadIdx.x) / kWarpLanes, mine = kTwo ? 2 * lane : lane;
  const long long row0 = (long long)(blockIdx.x - rest * t.across.by) * (kUnits * kRows);
  const long long column0 = (long long)(rest - image * t.along.by) * kColumns;
  const int rows = int(min(t.rows - row0, (long long)kUnits * kRows));
  const int columns = int(min(t.columns - column0, (long long)kColumns));
  from += (image * t.rows + row0) * t.columns + column0;
  to += (image * t.columns + column0) * t.rows + row0;

  unsigned first[kUnitsEach], second[kUnitsEach];
#pragma unroll
  for (int i = 0; i < kUnitsEach; i++) {
    const int row = kRows * (warp + i * kWarps);
    const U* line = from + row * t.columns;
    if constexpr (kTwo) {
      first[i] = row < rows ? load_pair<kEvenColumns>(line, mine, columns) : 0u;
      second[i] = row + 1 < rows ? load_pair<kEvenColumns>(line + t.columns, mine, columns) : 0u;
    } else {
      first[i] = row < rows && mine < columns ? line[mine] : 0u;
      second[i] = row < rows && mine + kNext < columns ? line[mine + kNext] : 0u;
    }
  }
#pragma unroll
  for (int i = 0; i < kUnitsEach; i++) {
    const int at = (warp + i * kWarps) ^ lane;
    tile[mine][at] = kTwo ? (first[i] & 0xffffu) | second[i] << 16 : first[i];
    tile[mine + kNext][at] = kTwo ? first[i] >> 16 | (second[i] & 0xffff0000u) : second[i];
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kColumns / kWarps; i++) {
    const int column = warp + i * kWarps;
    const unsigned word = tile[column][lane ^ (kTwo ? column / 2 : column % kWarpLanes)];
    U* line = to + column * t.rows;
    if (column >= columns) continue;
    if constexpr (kTwo) store_pair<kEvenRows>(line, 2 * lane, rows, word);
    else if (lane < rows) line[lane] = word;
  }
}

template <class U>
void transpose(long long images, long long rows, long long columns, const void* from, void* to, Stream stream) {
  const long long across = ceil_div(rows, kUnits * 4 / int(sizeof(U))), along = ceil_div(columns, kColumns);
  const Transposition t{images, rows, columns, Divisor(across), Divisor(along)};
  const auto start = [&](auto kernel) {
    launch(kernel, blocks_for(across * along * images, 1), dim3(kThreads), 0, stream, t, static_cast<const U*>(from),
           static_cast<U*>(to));
  };
  if constexpr (sizeof(U) == 4) return start(transpose_kernel<U, true, true>);
  else if (rows % 2 == 0) start(columns % 2 == 0 ? transpose_kernel<U, true, true> : transpose_kernel<U, true, false>);
  else start(columns % 2 == 0 ? transpose_kernel<U, false, true> : transpose_kernel<U, false, false>);
}

// ---- any elements ----

// The tile whose blocks cover C channels with the fewest lanes idle, but whose rows fill a sector where C does
int log_channels(int C, int bytes) {
  constexpr int kSector = 32;
  int best = kMostChannels;
  const auto idle = [&](int log) { return ceil_div(C, 1 << log) << log; };
  for (int log = kMostChannels; log > 0 && ((1 << log) >= C || (1 << log) * bytes >= kSector); log--)
    if (idle(log) < idle(best)) best = log;
  return best;
}

template <class U>
void change(long long images, int C, long long pixels, bool to_channels_last, const void* from_, void* to_,
            Stream stream) {
  LayoutTiles t{images, pixels, C, log_channels(C, int(sizeof(U))), kLeastPixels, {}, {}};
  const auto slots = [&] { return 1LL << (t.log_channels + t.log_pixels); };
  while (2 * slots() <= kSlots && (1LL << t.log_pixels) < pixels) t.log_pixels++;
  const long long across = ceil_div(C, 1LL << t.log_channels), along = ceil_div(pixels, 1LL << t.log_pixels);
  t.across = Divisor(across), t.along = Divisor(along);
  const dim3 blocks = blocks_for(across * along * ceil_div(images, kSlots / slots()), 1);
  const U* from = static_cast<const U*>(from_);
  U* to = static_cast<U*>(to_);
  if (to_channels_last) launch(change_layout_kernel<U, true>, blocks, dim3(kThreads), 0, stream, t, from, to);
  else launch(change_layout_kernel<U, false>, blocks, dim3(kThreads), 0, stream, t, from, to);
}

bool both_begin_at_words(const void* a, const void* b) {
  return (reinterpret_cast<size_t>(a) | reinterpret_cast<size_t>(b)) % sizeof(unsigned) == 0;
}

}  // namespace

void change_layout(unsigned element_bytes, long long images, int C, long long pixels, bool to_channels_last,
                   const void* from, void* to, Stream stream) {
  constexpr int kLeastSide = 16;  // of a matrix whose tiles are worth it
  if (C >= kLeastSide && pixels >= kLeastSide && both_begin_at_words(from, to)) {
    const long long rows = to_channels_last ? C : pixels, columns = to_channels_last ? pixels : C;
    if (element_bytes == 2) return transpose<uint16_t>(images, rows, columns, from, to, stream);
    if (element_bytes == 4) return transpose<uint32_t>(images, rows, columns, from, to, stream);
  }
  switch (element_bytes) {
    case 1: return change<uint8_t>(images, C, pixels, to_channels_last, from, to, stream);
    case 2: return change<uint16_t>(images, C, pixels, to_channels_last, from, to, stream);
    case 4: return change<uint32_t>(images, C, pixels, to_channels_last, from, to, stream);
    default: return change<unsigned long long>(images, C, pixels, to_channels_last, from, to, stream);
  }
}

}  // namespace convlab
