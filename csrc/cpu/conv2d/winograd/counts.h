// What a pass by Winograd multiplies and adds, counted from its tiling: the products of the points, and the additions
// of the transformations as transform.h makes them. Torch-free.
#pragma once
#include <algorithm>

#include "cpu/conv2d/winograd/tiling.h"

namespace convlab::winograd {

// Additions of a vector's transformation along one dimension. A pair of points shares the sums of its even and of its
// odd columns, of which one addition each makes the two.
struct LineCounts {
  int pairs, infinity, inputs;

  int points() const { return 1 + 2 * pairs + infinity; }
  int filters(int taps) const { return taps == 1 ? 0 : pairs * taps; }
  int outputs(int count) const { return 2 * pairs + count * (pairs - 1) + 1 + infinity; }
};

// In tiles with n of m outputs
template <int m, int n> constexpr LineCounts lines_of() {
  constexpr AllMatrices<m, n> all;
  const auto nonzeros = [&](int i) {
    int count = 0;
    for (const Fraction& f : all.input[i]) count += f.over != 0;
    return count;
  };
  LineCounts c{0, has_point(m, n, m + 1), nonzeros(0) - 1};
  if (c.infinity) c.inputs += nonzeros(m + 1) - 1;
  for (int i = 1; i < m; i += 2)
    if (has_point(m, n, i)) c.pairs++, c.inputs += nonzeros(i);
  return c;
}
constexpr LineCounts kLines2[] = {lines_of<2, 1>(), lines_of<2, 2>()},
                     kLines4[] = {lines_of<4, 1>(), lines_of<4, 2>(), lines_of<4, 3>(), lines_of<4, 4>()};

struct Counts {
  int64_t products = 0, additions = 0;
};

inline Counts count(const Tiling& t, bool wgrad) {
  const auto lines = [&](int n) -> const LineCounts& { return (t.m == 2 ? kLines2 : kLines4)[n - 1]; };
  const LineCounts& whole = lines(t.m);
  int64_t columns = 0;  // of the source, that tiles reach
  for (int c = -t.left; c < t.target_columns + kTaps - 1 - t.left; c++) columns += c >= 0 && c < t.source_columns;

  int64_t products = 0, inputs = 0, outputs = 0;  // of one image's channel of the source, of the target, or of both
  for (int i = 0; i < t.tile_rows(); i++) {
    const int height = std::min(t.m, t.target_rows - i * t.m);
    const LineCounts& row = lines(height);
    inputs += columns * row.inputs;
    if (wgrad) outputs += int64_t(t.target_columns) * row.filters(height);
    for (int j = 0; j < t.tile_columns(); j++) {
      const int width = std::min(t.m, t.target_columns - j * t.m);
      const LineCounts& column = lines(width);
      products += row.points() * column.points();
      inputs += row.points() * column.inputs;
      outputs += wgrad ? row.points() * column.filters(width)
                       : column.points() * row.outputs(height) + height * column.outputs(width);
    }
  }
  // Filters are transformed once or for every strip; wgrad's come out once a slice or a strip
  const int64_t filters = wgrad ? (t.m + 2 + kTaps) * whole.outputs(kTaps) * (t.kept ? t.slices : t.strips)
                                : (t.m + 2 + kTaps) * whole.filters(kTaps) * (t.kept ? 1 : t.strips);
  const int64_t images = int64_t(t.images) * t.groups;
  return {images * products * t.depth * t.width,
          images * (inputs * t.depth + outputs * t.width) + filters * t.groups * t.depth * t.width};
}

}  // namespace convlab::winograd
