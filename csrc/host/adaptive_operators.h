// Adaptive pooling, max unpooling and its gather, up to the backend; see conv2d_operators.h. An Impl has takes_channels_last
// (tensors.h). It is made from the tensor that the call writes; for gather, from x and whether that is channels_last.
//
//   void average(const Adaptive&, DType, const void* x, void* y)
//   void average_backward(const Adaptive&, DType, const void* dy, void* dx)
//   void maximum(const Adaptive&, DType, const void* x, void* y, void* indices)
//   void maximum_backward(const Adaptive&, DType, const void* dy, const void* indices, void* dx)
//   void unpool(const Adaptive&, DType, const void* x, const void* indices, void* y)
//   void gather(const Adaptive&, DType, const void* x, const void* indices, void* y, bool to_planes)
//
// `indices` are int64, h W + w of a plane [H, W]. In unpool, where x is [planes, P, Q] and y [planes, H, W], and in
// gather, where it is the other way round, positions outside the plane are no element's. to_planes: y is contiguous.
#pragma once
#include "geometry/adaptive.h"
#include "host/pool2d_operators.h"

namespace convlab {

// larger [N, C, H, W] and smaller [N, C, P, Q]
inline Adaptive make_adaptive(const char* op, const Sizes& larger, const Sizes& smaller) {
  check_list(op, "input", larger, 4, 0);
  check_list(op, "output", smaller, 4, 0);
  CONVLAB_CHECK(larger[0] == smaller[0] && larger[1] == smaller[1], op, ": ", text(larger), " and ", text(smaller),
                " must have the same images and channels");
  check_plane(op, "input", larger[2], larger[3]);
  check_plane(op, "output", smaller[2], smaller[3]);
  return {larger[0] * larger[1], int(larger[2]), int(larger[3]), int(smaller[2]), int(smaller[3])};
}

inline Sizes with_plane(const char* op, const char* name, const Tensor& t, const Sizes& plane) {
  CONVLAB_CHECK(t.dim() == 4, op, ": ", name, " must have four dimensions, got ", text(sizes_of(t)));
  check_list(op, "a plane", plane, 2, 0);
  return {t.size(0), t.size(1), plane[0], plane[1]};
}

inline void check_indices(const char* op, const Tensor& indices, const Tensor& like) {
  check_sizes(op, {"indices", indices}, sizes_of(like));
  check_same_device(op, {"input", like}, {"indices", indices});
  CONVLAB_CHECK(indices.scalar_type() == ScalarType::Long, op, ": indices is ", name_of(indices.scalar_type()),
                ", expected int64");
}

// A tensor of `sizes` that run(out) fills, as the inputs lie, and then laid channels_last or not
template <class Impl, class Run>
Tensor filled(const Sizes& sizes, ScalarType dtype, const Tensor& like, bool as_inputs, bool channels_last,
              const Run& run) {
  Tensor t = output<Impl>(sizes, dtype, like, as_inputs || (channels_last && one_layout(sizes)));
  if (t.numel() > 0) run(t);
  return in_layout<Impl>(t, channels_last);
}

// Whether to read t and its indices channels_last, to write `sizes`: as they lie
template <class Impl>
bool read_channels_last(const Tensor& t, const Tensor& indices, const Sizes& sizes, bool channels_last) {
  if (!Impl::takes_channels_last || one_layout(sizes)) return Impl::takes_channels_last && channels_last;
  return is_dense_channels_last(t) && is_dense_channels_last(indices) && (channels_last || lies_channels_last(t));
}

// The windows of a pooling over planes of x, which have an element each
inline Adaptive make_windows(const char* op, const Sizes& x, const Sizes& y) {
  CONVLAB_CHECK(x[0] * x[1] == 0 || (x[2] > 0 && x[3] > 0), op, ": input ", text(x),
                " may be empty in the batch and channel dimensions only");
  return make_adaptive(op, x, y);
}

// x [N, C, H, W] -> y [N, C, P, Q]
template <class Impl> Tensor adaptive_avg_pool2d_forward(Tensor x, Sizes output_size) {
  const char* op = "adaptive_avg_pool2d";
  const DType dtype = dtype_of(op, {"input", x});
  const Sizes outputs = with_plane(op, "input", x, output_size);
  const Adaptive g = make_windows(op, sizes_of(x), outputs);
  const bool channels_last = is_channels_last(x);
  Tensor y = output<Impl>(outputs, x.scalar_type(), x, channels_last);
  if (y.numel() > 0) {
    const Tensor xp = packed<Impl>(x);
    Impl(y).average(g, dtype, in("input", xp), out("output", y));
  }
  return to_requested_layout<Impl>(y, channels_last);
}

// dy [N, C, P, Q] -> dx [N, C, H, W], where input_size is (H, W)
template <class Impl> Tensor adaptive_avg_pool2d_backward(Tensor dy, Sizes input_size, bool channels_last) {
  const char* op = "adaptive_avg_pool2d_backward";
  const DType dtype = dtype_of(op, {"grad_output", dy});
  const Sizes inputs = with_plane(op, "grad_output", dy, input_size);
  const Adaptive g = make_adaptive(op, inputs, sizes_of(dy));
  Tensor dx = output<Impl>(inputs, dy.scalar_type(), dy, channels_last);
  if (dx.numel() > 0) {
    const Tensor dyp = packed_as<Impl>(dy, channels_last);
    Impl(dx).average_backward(g, dtype, in("grad_output", dyp), out("grad_input", dx));
  }
  return to_requested_layout<Impl>(dx, channels_last);
}

// x [N, C, H, W] -> y and indices [N, C, P, Q]
template <class Impl> std::tuple<Tensor, Tensor> adaptive_max_pool2d_forward(Tensor x, Sizes output_size) {
  const char* op = "adaptive_max_pool2d";
  const DType dtype = dtype_of(op, {"input", x});
  const Sizes outputs = with_plane(op, "input", x, output_size);
  const Adaptive g = make_windows(op, sizes_of(x), outputs);
  const bool channels_last = is_channels_last(x);
  Tensor y = output<Impl>(outputs, x.scalar_type(), x, channels_last),
         indices = output<Impl>(outputs, ScalarType::Long, x, channels_last);
  if (y.numel() > 0) {
    const Tensor xp = packed<Impl>(x);
    Impl(y).maximum(g, dtype, in("input", xp), out("output", y), out("indices", indices));
  }
  return {to_requested_layout<Impl>(y, channels_last), to_requested_layout<Impl>(indices, channels_last)};
}

// dy, indices [N, C, P, Q] -> dx [N, C, H, W], where input_size is (H, W): sums of the dy of the windows that it won
template <class Impl>
Tensor adaptive_max_pool2d_backward(Tensor dy, Tensor indices, Sizes input_size, bool channels_last) {
  const char* op = "adaptive_max_pool2d_backward";
  const DType dtype = dtype_of(op, {"grad_output", dy});
  check_indices(op, indices, dy);
  const Sizes inputs = with_plane(op, "grad_output", dy, input_size);
  const Adaptive g = make_adaptive(op, inputs, sizes_of(dy));
  const bool last = read_channels_last<Impl>(dy, indices, inputs, channels_last);
  return filled<Impl>(inputs, dy.scalar_type(), dy, last, channels_last, [&](Tensor& dx) {
    const Tensor dyc = in_layout<Impl>(dy, last), ic = in_layout<Impl>(indices, last);
    Impl(dx).maximum_backward(g, dtype, in("grad_output", dyc), in("indices", ic), out("grad_input", dx));
  });
}

// x, indices [N, C, P, Q] -> y [N, C, H, W], where output_size is (H, W): x at its indices, the last of several; else 0
template <class Impl> Tensor max_unpool2d_forward(Tensor x, Tensor indices, Sizes output_size, bool channels_last) {
  const char* op = "max_unpool2d";
  const DType dtype = dtype_of(op, {"input", x});
  check_indices(op, indices, x);
  const Sizes outputs = with_plane(op, "input", x, output_size);
  const Adaptive g = make_adaptive(op, outputs, sizes_of(x));
  const bool last = read_channels_last<Impl>(x, indices, outputs, channels_last);
  return filled<Impl>(outputs, x.scalar_type(), x, last, channels_last, [&](Tensor& y) {
    const Tensor xc = in_layout<Impl>(x, last), ic = in_layout<Impl>(indices, last);
    Impl(y).unpool(g, dtype, in("input", xc), in("indices", ic), out("output", y));
  });
}

// x [N, C, H, W], indices [N, C, P, Q] -> y [N, C, P, Q]: x at the indices
template <class Impl> Tensor planes_gather(Tensor x, Tensor indices, bool channels_last) {
  const char* op = "planes_gather";
  const DType dtype = dtype_of(op, {"input", x});
  CONVLAB_CHECK(x.dim() == 4 && indices.dim() == 4, op, ": input and indices must have four dimensions");
  check_indices(op, indices, indices);
  const Adaptive g = make_adaptive(op, sizes_of(x), sizes_of(indices));
  const bool last = read_channels_last<Impl>(x, indices, sizes_of(indices), channels_last);
  Tensor y = output(sizes_of(indices), x.scalar_type(), x, channels_last, last);
  if (y.numel() > 0) {
    const Tensor xc = in_layout<Impl>(x, last), ic = in_layout<Impl>(indices, last);
    Impl(xc, last).gather(g, dtype, in("input", xc), in("indices", ic), out("output", y), !channels_last || !last);
  }
  return to_requested_layout<Impl>(y, channels_last, last);
}

}  // namespace convlab

// In the registration of a backend
#define CONVLAB_ADAPTIVE_OPERATORS(m, Impl)                                                        \
  m.impl("adaptive_avg_pool2d_forward", TORCH_BOX(&convlab::adaptive_avg_pool2d_forward<Impl>));   \
  m.impl("adaptive_avg_pool2d_backward", TORCH_BOX(&convlab::adaptive_avg_pool2d_backward<Impl>)); \
  m.impl("adaptive_max_pool2d_forward", TORCH_BOX(&convlab::adaptive_max_pool2d_forward<Impl>));   \
  m.impl("adaptive_max_pool2d_backward", TORCH_BOX(&convlab::adaptive_max_pool2d_backward<Impl>)); \
  m.impl("max_unpool2d_forward", TORCH_BOX(&convlab::max_unpool2d_forward<Impl>));                 \
  m.impl("planes_gather", TORCH_BOX(&convlab::planes_gather<Impl>))
