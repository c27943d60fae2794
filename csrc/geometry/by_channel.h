// Elements in memory order that belong to channels: element i to channel i / inner % channels. Torch-free, for host and
// device.
#pragma once

namespace convlab {

// [outer, channels, inner]: a contiguous x [N, C, H, W] is {N, C, H W}, a channels_last one {N H W, C, 1}; all of one
// channel are {1, 1, elements}.
struct ByChannel {
  long long outer, channels, inner;
  long long elements() const { return outer * channels * inner; }

  // A row is `inner` elements of one channel or, where inner is 1, one element of every channel
  long long rows() const { return inner == 1 ? outer : outer * channels; }
  long long row() const { return inner == 1 ? channels : inner; }
};

// A sum for each channel is made of sums of slices of its elements, whose number follows from the sizes alone, so that
// the bits are the same every time.
constexpr long long kSliceElements = 8192, kMostSlices = 256;
inline long long channel_slices(const ByChannel& g) {
  const long long slices = (g.outer * g.inner + kSliceElements - 1) / kSliceElements;
  return slices < 1 ? 1 : slices > kMostSlices ? kMostSlices : slices;
}

}  // namespace convlab
