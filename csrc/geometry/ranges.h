// Which of equally spaced positions lie inside a tensor, in one dimension. Torch-free; the struct for device code as
// well.
#pragma once
#include <algorithm>

namespace convlab {

struct Range {
  int begin, end;
};

// The i < count for which start + i * step lies in [0, size). With (R, H, dilation, p stride - pad): the taps of output
// p; with (P, H, stride, r dilation - pad): the outputs at which tap r lies inside.
inline Range places_inside(int count, int size, int step, int start) {
  const int begin = start < 0 ? (-start + step - 1) / step : 0;
  const int end = start < size ? (size - 1 - start) / step + 1 : 0;
  return {std::min(begin, count), std::max(std::min(begin, count), std::min(end, count))};
}

}  // namespace convlab
