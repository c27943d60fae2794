// From a problem to what kernels take: strides, filters, and tap classes that own what a Product points to.
#pragma once
#include <vector>

#include "cpu/conv2d/cpu_rung.h"
#include "cpu/conv2d/product.h"
#include "cpu/instruction_sets.h"
#include "geometry/tap_classes.h"

namespace convlab {

inline Strides x_strides(const Problem& p) {
  const bool last = p.pass == Pass::forward ? p.layouts.first
                    : p.pass == Pass::dgrad ? p.layouts.output
                                            : p.layouts.second;
  return strides_of(p.g.C, p.g.H, p.g.W, last);
}
inline Strides y_strides(const Problem& p) {
  return strides_of(p.g.K, p.g.P, p.g.Q, p.pass == Pass::forward ? p.layouts.output : p.layouts.first);
}

// The weights of a pass whose vectors are over k (forward, wgrad) or over c (dgrad)
inline Filters filters_of(const Problem& p) {
  const Conv2d& g = p.g;
  const bool over_k = p.pass != Pass::dgrad,
             channels_last = p.pass == Pass::wgrad ? p.layouts.output : p.layouts.second;
  const int64_t taps = int64_t(g.R) * g.S, k = g.Cg() * taps, c = channels_last ? 1 : taps;
  return {.groups = g.groups,
          .width = over_k ? g.Kg() : g.Cg(),
          .depth = over_k ? g.Cg() : g.Kg(),
          .R = g.R,
          .S = g.S,
          .group = g.Kg() * k,
          .lane = over_k ? k : c,
          .depth_stride = over_k ? c : k,
          .tap = channels_last ? g.Cg() : 1};
}

// Rows of a strip: an even number, so that windows of two rows lie in one
inline int in_pairs(int64_t rows) { return rows > 2 ? int(rows / 2 * 2) : int(std::max<int64_t>(1, rows)); }

inline bool is_pointwise(const Conv2d& g) {
  return g.R == 1 && g.S == 1 && g.stride_h == 1 && g.stride_w == 1 && g.pad_h == 0 && g.pad_w == 0;
}

// Filters that meet every element of x at most once, and no padding
inline bool meets_once(const Conv2d& g) {
  if (g.pad_h || g.pad_w || (g.R > 1 && g.dilation_h > 1) || (g.S > 1 && g.dilation_w > 1)) return false;
  return g.R <= g.stride_h && g.S <= g.stride_w && (g.P - 1) * g.stride_h + g.R <= g.H &&
         (g.Q - 1) * g.stride_w + g.S <= g.W;
}

// For 1 x 1 filters a contiguous plane can be cut into rows of any length: here the longest of up to 512 elements that
// fill whole vectors. A plane that is no such row is one row by itself, of up to 512 elements, where a row may end in a
// `rest` of a vector.
inline Problem with_rows_of_vectors(Problem p, bool rest = false) {
  constexpr int kLongest = 512;
  Conv2d& g = p.g;
  const int plane = g.H * g.W, lanes = instruction_set().lanes(p.dtype);
  const bool contiguous = !p.layouts.first && !(p.pass == Pass::wgrad ? p.layouts.second : p.layouts.output);
  if (!is_pointwise(g) || g.P != g.H || g.Q != g.W || !contiguous) return p;
  const int vectors = plane / lanes;
  int rows = 1;
  if (plane % lanes == 0) {
    rows = vectors;
    for (int i = 1; i * lanes <= kLongest; i++)
      if (vectors % i == 0) rows = vectors / i;
  } else if (!rest || vectors == 0 || plane > kLongest) {
    return p;
  }
  g.H = g.P = rows, g.W = g.Q = plane / rows;
  return p;
}

// The rows and columns of x that filters of one row or column never meet, left out.
inline void leave_out_skipped_rows(Conv2d& g, Strides& x) {
  if (g.R == 1 && g.pad_h == 0 && (g.P - 1) * g.stride_h < g.H) x.h *= g.stride_h, g.H = g.P, g.stride_h = 1;
}
inline void leave_out_skipped(Conv2d& g, Strides& x) {
  leave_out_skipped_rows(g, x);
  if (g.S == 1 && g.pad_w == 0 && (g.Q - 1) * g.stride_w < g.W) x.w *= g.stride_w, g.W = g.Q, g.stride_w = 1;
}

// What a pass computes, before its taps are sorted into classes
inline Product product_of(const Conv2d& g, Pass pass, DType dtype, const Strides& x, const Strides& y) {
  Product p{.images = g.N,
            .groups = g.groups,
            .depth = g.Cg(),
            .width = g.Kg(),
            .rows = {g.R, g.H, g.P},
            .columns = {g.S, g.W, g.Q},
            .source = x,
            .target = y,
            .same_type = is_sum_type(dtype)};
  if (pass != Pass::dgrad) return p;
  std::swap(p.depth, p.width), std::swap(p.source, p.target);
  std::swap(p.rows.source, p.rows.target), std::swap(p.columns.source, p.columns.target);
  return p;
}

class Classes {
 public:
  explicit Classes(std::vector<TapClass> all) : classes_(std::move(all)) {
    for (const TapClass& c : classes_)
      views_.push_back({c.taps.data(), c.offsets.data(), int(c.taps.size()), c.places.data(), int(c.places.size())});
  }
  void show(AxisView& axis) const { axis.classes = views_.data(), axis.count = int(views_.size()); }

 private:
  std::vector<TapClass> classes_;
  std::vector<TapClassView> views_;
};

// Owns what its product points to. Columns have no classes where zeros stand for what taps read outside.
struct TapTables {
  Axis vertical, horizontal;
  Classes rows, columns;
  Product product;

  TapTables(const Conv2d& g, Pass pass, DType dtype, const Strides& x, const Strides& y, bool with_columns)
      : vertical(rows_of(g)),
        horizontal(columns_of(g)),
        rows(classes_of(pass, vertical)),
        columns(with_columns ? classes_of(pass, horizontal) : std::vector<TapClass>()),
        product(product_of(g, pass, dtype, x, y)) {
    rows.show(product.rows), columns.show(product.columns);
  }

 private:
  static std::vector<TapClass> classes_of(Pass pass, const Axis& a) {
    return pass == Pass::dgrad ? dgrad_classes(a) : forward_classes(a);
  }
};

}  // namespace convlab
