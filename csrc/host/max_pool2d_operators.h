// The max pooling operators up to the backend; see conv2d_operators.h. An Impl has
//
//   void forward(const Pool2d&, DType, const void* x, void* y, void* offsets_or_null)
//   void backward(const Pool2d&, DType, const void* dy, const void* offsets, void* dx)
//   void gather(const Pool2d&, DType, const void* x, const void* offsets, void* y)
//   void indices(const Pool2d&, const void* offsets, long long* indices)
//
// and static constexpr bool takes_channels_last (tensors.h), and is made from the tensor that the call writes: all of its
// tensors lie alike.
//
// `offsets` [N, C, P, Q] names the tap that won in each window, r * S + s: uint8 for windows of up to 256 taps, else
// int32. It lies as x does, or, from a backend without takes_channels_last, contiguous. y lies as x.
#pragma once
#include "host/pool2d_operators.h"

namespace convlab {

inline ScalarType offset_type(const Pool2d& g) { return offsets_fit_a_byte(g) ? ScalarType::Byte : ScalarType::Int; }

inline void check_offsets(const char* op, const Pool2d& g, const Tensor& offsets, const Sizes& x) {
  check_sizes(op, {"offsets", offsets}, {x[0], x[1], g.P, g.Q});
  CONVLAB_CHECK(offsets.scalar_type() == offset_type(g), op, ": offsets is ", name_of(offsets.scalar_type()),
                ", expected ", name_of(offset_type(g)), " for windows of ", g.R, " x ", g.S);
}

// x [N, C, H, W] -> y [N, C, P, Q], and offsets [N, C, P, Q], or [0] unless with_offsets
template <class Impl>
std::tuple<Tensor, Tensor> max_pool2d_forward(Tensor x, Sizes window, bool ceil_mode, bool with_offsets) {
  const char* op = "max_pool2d";
  const DType dtype = dtype_of(op, {"input", x});
  const Pool2d g = make_pool2d(op, sizes_of(x), window, ceil_mode);
  const Sizes outputs{x.size(0), x.size(1), g.P, g.Q};

  const bool channels_last = is_channels_last(x);
  Tensor y = output<Impl>(outputs, x.scalar_type(), x, channels_last);
  Tensor offsets =
      with_offsets ? output<Impl>(outputs, offset_type(g), x, channels_last) : empty({0}, offset_type(g), x);
  if (y.numel() > 0) {
    const Tensor xp = packed<Impl>(x);
    Impl(y).forward(g, dtype, in("input", xp), out("output", y),
                    out_or_null("offsets", with_offsets ? &offsets : nullptr));
  }
  return {to_requested_layout<Impl>(y, channels_last), offsets};
}

// dy, offsets [N, C, P, Q] -> dx [N, C, H, W], where input_size is (H, W)
template <class Impl>
Tensor max_pool2d_backward(Tensor dy, Tensor offsets, Sizes input_size, Sizes window, bool channels_last) {
  const char* op = "max_pool2d_backward";
  const DType dtype = dtype_of(op, {"grad_output", dy});
  const Pool2d g = pool2d_from_outputs(op, sizes_of(dy), input_size, window);
  const Sizes x{dy.size(0), dy.size(1), g.H, g.W};
  check_offsets(op, g, offsets, x);

  Tensor dx = output<Impl>(x, dy.scalar_type(), dy, channels_last);
  if (dx.numel() > 0) {
    const Tensor dyp = packed_as<Impl>(dy, channels_last), winners = packed_as<Impl>(offsets, channels_last);
    Impl(dx).backward(g, dtype, in("grad_output", dyp), in("offsets", winners), out("grad_input", dx));
  }
  return to_requested_layout<Impl>(dx, channels_last);
}

// x [N, C, H, W], offsets [N, C, P, Q] -> y [N, C, P, Q]: x at the winners
template <class Impl> Tensor max_pool2d_gather(Tensor x, Tensor offsets, Sizes window) {
  const char* op = "max_pool2d_gather";
  const DType dtype = dtype_of(op, {"input", x});
  CONVLAB_CHECK(x.dim() == 4, op, ": input must be [N, C, H, W], got ", text(sizes_of(x)));
  const Pool2d g = pool2d_from_outputs(op, sizes_of(offsets), {x.size(2), x.size(3)}, window);
  check_offsets(op, g, offsets, sizes_of(x));

  const bool channels_last = is_channels_last(x);
  Tensor y = output<Impl>(sizes_of(offsets), x.scalar_type(), x, channels_last);
  if (y.numel() > 0) {
    const Tensor xp = packed<Impl>(x), winners = packed_as<Impl>(offsets, channels_last);
    Impl(y).gather(g, dtype, in("input", xp), in("offsets", winners), out("output", y));
  }
  return to_requested_layout<Impl>(y, channels_last);
}

// offsets [N, C, P, Q] -> indices [N, C, P, Q] int64: h * W + w of the winners, where input_size is (H, W); they lie as
// offsets
template <class Impl> Tensor max_pool2d_indices(Tensor offsets, Sizes input_size, Sizes window) {
  const char* op = "max_pool2d_indices";
  const Pool2d g = pool2d_from_outputs(op, sizes_of(offsets), input_size, window);
  check_offsets(op, g, offsets, sizes_of(offsets));

  const bool channels_last = is_channels_last(offsets);
  Tensor indices = output<Impl>(sizes_of(offsets), ScalarType::Long, offsets, channels_last);
  if (indices.numel() > 0) {
    const Tensor winners = packed<Impl>(offsets);
    Impl(indices).indices(g, in("offsets", winners),
                          static_cast<long long*>(static_cast<void*>(out("indices", indices))));
  }
  return to_requested_layout<Impl>(indices, channels_last);
}

}  // namespace convlab
