// Which outputs a tap reaches without leaving the input, in one dimension. Torch-free, host only.
#pragma once
#include <algorithm>

namespace convlab {

struct Range {
  int begin, end;
};

// The outputs p < outputs for which p * stride + shift lies in [0, size): for tap r, shift = r * dilation - pad.
inline Range outputs_inside(int outputs, int size, int stride, int shift) {
  const int begin = shift < 0 ? (-shift + stride - 1) / stride : 0;
  const int end = shift < size ? (size - 1 - shift) / stride + 1 : 0;
  return {std::min(begin, outputs), std::max(std::min(begin, outputs), std::min(end, outputs))};
}

}  // namespace convlab
