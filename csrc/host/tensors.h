// What the host side of every operator does with tensors: read sizes and element types, insist that they belong
// together, bring them into the layout that kernels take, allocate outputs. The only torch header that convlab's C++
// includes are those of the stable ABI, so that one build serves every torch from 2.11 on.
#pragma once
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdlib>
#include <initializer_list>
#include <optional>
#include <tuple>

#include "dtype.h"
#include "geometry/validate.h"
#include "host/pages.h"

namespace convlab {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline Sizes sizes_of(const Tensor& t) {
  const auto sizes = t.sizes();
  return Sizes(sizes.begin(), sizes.end());
}

inline const char* name_of(ScalarType type) {
  switch (type) {
    case ScalarType::Byte: return "uint8";
    case ScalarType::Char: return "int8";
    case ScalarType::Short: return "int16";
    case ScalarType::Int: return "int32";
    case ScalarType::Long: return "int64";
    case ScalarType::Bool: return "bool";
    case ScalarType::Half: return "float16";
    case ScalarType::Float: return "float32";
    case ScalarType::Double: return "float64";
    case ScalarType::BFloat16: return "bfloat16";
    case ScalarType::ComplexHalf:
    case ScalarType::ComplexFloat:
    case ScalarType::ComplexDouble: return "a complex type";
    default: return "another type";
  }
}

struct Named {
  const char* name;
  const Tensor& tensor;
};

inline DType dtype_of(const char* op, const Named& t) {
  switch (t.tensor.scalar_type()) {
    case ScalarType::Float: return DType::float32;
    case ScalarType::Double: return DType::float64;
    case ScalarType::Half: return DType::float16;
    case ScalarType::BFloat16: return DType::bfloat16;
    default:
      throw std::runtime_error(message(op, ": ", t.name, " is ", name_of(t.tensor.scalar_type()),
                                       ", expected float32, float64, float16 or bfloat16"));
  }
}

inline std::string device_name(const Tensor& t) { return t.is_cuda() ? message("cuda:", t.get_device_index()) : "cpu"; }

inline void check_same_device(const char* op, const Named& first, const Named& t) {
  CONVLAB_CHECK(
      t.tensor.is_cuda() == first.tensor.is_cuda() && t.tensor.get_device_index() == first.tensor.get_device_index(),
      op, ": ", t.name, " is on ", device_name(t.tensor), " but ", first.name, " is on ", device_name(first.tensor),
      "; they must be on the same device");
}

// All tensors must have the first one's element type, and lie on its device.
inline void same_type(const char* op, std::initializer_list<Named> tensors) {
  const Named& first = *tensors.begin();
  for (const Named& t : tensors) {
    check_same_device(op, first, t);
    CONVLAB_CHECK(t.tensor.scalar_type() == first.tensor.scalar_type(), op, ": ", t.name, " is ",
                  name_of(t.tensor.scalar_type()), " but ", first.name, " is ", name_of(first.tensor.scalar_type()),
                  "; they must be the same");
  }
}

// The element type of the first tensor; the others must have it as well, and lie on the same device.
inline DType common_dtype(const char* op, std::initializer_list<Named> tensors) {
  same_type(op, tensors);
  return dtype_of(op, *tensors.begin());
}

inline void check_sizes(const char* op, const Named& t, const Sizes& expected) {
  CONVLAB_CHECK(sizes_of(t.tensor) == expected, op, ": ", t.name, " is ", text(sizes_of(t.tensor)), ", expected ",
                text(expected));
}

// Whether torch would take a [N, C, H, W] tensor for channels_last: c10::is_channels_last_strides_2d, which the stable
// ABI does not have. Ambiguous strides (C = 1, or H = W = 1) count as what torch counts them.
inline bool is_channels_last(const Tensor& t) {
  if (t.dim() != 4) return false;
  const auto size = t.sizes(), stride = t.strides();
  if (stride[1] == 0) return false;
  int64_t least = 0;
  for (int d : {1, 3, 2, 0}) {
    if (size[d] == 0 || stride[d] < least) return false;
    if (d == 0 && least == stride[1]) return false;
    least = stride[d] * std::max<int64_t>(size[d], 1);
  }
  return true;
}

// CONVLAB_POISON=1, for tests: outputs begin as NaN, or as 111 where they are of integers, so that what a kernel
// forgets to write shows. (torch's deterministic mode does not reach memory that is not asked for through its
// dispatcher.)
inline bool poisoned() {
  static const char* const wanted = std::getenv("CONVLAB_POISON");
  return wanted && *wanted == '1';
}

inline int32_t dtype_number(ScalarType type) {
  return torch::stable::detail::to<int32_t>(torch::stable::detail::from(type));
}

// Memory with these strides, at half of what the dispatcher's empty() costs
inline Tensor empty_strided(torch::headeronly::IntHeaderOnlyArrayRef sizes,
                            torch::headeronly::IntHeaderOnlyArrayRef strides, ScalarType dtype,
                            const Tensor& device_of) {
  const bool cuda = device_of.is_cuda();
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(int64_t(sizes.size()), sizes.data(), strides.data(),
                                                  dtype_number(dtype),
                                                  cuda ? aoti_torch_device_type_cuda() : aoti_torch_device_type_cpu(),
                                                  cuda ? device_of.get_device_index() : 0, &handle));
  Tensor t(handle);
  if (!cuda) ask_for_large_pages(t.mutable_data_ptr(), t.numel() * int64_t(t.element_size()));
  if (poisoned()) {
    const bool floating = dtype == ScalarType::Float || dtype == ScalarType::Double || dtype == ScalarType::Half ||
                          dtype == ScalarType::BFloat16;
    torch::stable::fill_(t, floating ? std::numeric_limits<double>::quiet_NaN() : 111.0);
  }
  return t;
}

inline Tensor empty(const Sizes& sizes, ScalarType dtype, const Tensor& device_of,
                    MemoryFormat format = MemoryFormat::Contiguous) {
  if (device_of.is_cuda())
    return torch::stable::empty(sizes, dtype, std::nullopt, device_of.device(), std::nullopt, format);
  Sizes strides(sizes.size());
  int64_t step = 1;
  const auto next = [&](size_t d) { strides[d] = step, step *= std::max<int64_t>(sizes[d], 1); };
  if (format == MemoryFormat::ChannelsLast) next(1), next(3), next(2), next(0);
  else
    for (size_t d = sizes.size(); d-- > 0;) next(d);
  return empty_strided(sizes, strides, dtype, device_of);
}

// A copy of `t` that is channels_last.
inline Tensor as_channels_last(const Tensor& t) {
  Tensor out = empty(sizes_of(t), t.scalar_type(), t, MemoryFormat::ChannelsLast);
  torch::stable::copy_(out, t);
  return out;
}

// ---- layouts: a backend's kernels take contiguous tensors, or, where it says so (takes_channels_last), dense channels_last
// ones as well. One with kernels for it has `static void change_layout(const Tensor& from, Tensor& to, bool channels_last)`;
// tensors with other strides are copied by torch. -----

inline unsigned element_bytes(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Bool:
    case ScalarType::Byte: return 1;
    case ScalarType::Half:
    case ScalarType::BFloat16: return 2;
    case ScalarType::Int:
    case ScalarType::Float: return 4;
    case ScalarType::Double:
    case ScalarType::Long: return 8;
    default: throw std::runtime_error(message("convlab has no ", name_of(t.scalar_type())));
  }
}

// Whether a tensor lies channels_last, and not contiguous also, once it is packed for a backend that takes both
inline bool lies_channels_last(const Tensor& t) { return !t.is_contiguous() && is_channels_last(t); }

// Whether both layouts of these sizes are the same memory
inline bool one_layout(const Sizes& sizes) { return sizes[1] == 1 || (sizes[2] == 1 && sizes[3] == 1); }

// Whether a tensor's elements lie as those of a channels_last one, without gaps
inline bool is_dense_channels_last(const Tensor& t) {
  if (t.dim() != 4) return false;
  const int64_t C = t.size(1), W = t.size(3), row = C * W, expected[] = {t.size(2) * row, 1, row, C};
  for (int d = 0; d < 4; d++)
    if (t.size(d) != 1 && t.strides()[d] != expected[d]) return false;
  return true;
}

// `t` without gaps, and channels_last or contiguous
template <class Impl> Tensor in_layout(const Tensor& t, bool channels_last) {
  if (channels_last ? is_dense_channels_last(t) : t.is_contiguous()) return t;
  if constexpr (requires { &Impl::change_layout; })
    if (t.numel() > 0 && (channels_last ? t.is_contiguous() : is_dense_channels_last(t))) {
      Tensor out =
          empty(sizes_of(t), t.scalar_type(), t, channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
      Impl::change_layout(t, out, channels_last);
      return out;
    }
  return channels_last ? as_channels_last(t) : torch::stable::contiguous(t);
}

// `t` as kernels take it
template <class Impl> Tensor packed(const Tensor& t) {
  return in_layout<Impl>(t, Impl::takes_channels_last && !t.is_contiguous() && is_channels_last(t));
}

// An output for kernels to write; `to_requested_layout` gives it the layout it should have.
inline Tensor output(const Sizes& sizes, ScalarType dtype, const Tensor& device_of, bool channels_last,
                     bool as_it_lies) {
  return empty(
      sizes, dtype, device_of,
      channels_last && (as_it_lies || one_layout(sizes)) ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}
template <class Impl> Tensor output(const Sizes& sizes, ScalarType dtype, const Tensor& device_of, bool channels_last) {
  return output(sizes, dtype, device_of, channels_last, Impl::takes_channels_last);
}
template <class Impl> Tensor to_requested_layout(const Tensor& t, bool channels_last, bool as_it_lies) {
  return !channels_last || as_it_lies || one_layout(sizes_of(t)) ? t : in_layout<Impl>(t, true);
}
template <class Impl> Tensor to_requested_layout(const Tensor& t, bool channels_last) {
  return to_requested_layout<Impl>(t, channels_last, Impl::takes_channels_last);
}

}  // namespace convlab
