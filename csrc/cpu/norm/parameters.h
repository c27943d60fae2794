// What batch normalization has for each channel, as operators get it.
#pragma once
#include <optional>
#include <utility>

#include "host/tensors.h"

namespace convlab {

using Optional = std::optional<Tensor>;

template <class T> const T* data(const Tensor& t) { return static_cast<const T*>(t.const_data_ptr()); }
template <class T> const T* data(const Optional& t) { return t ? data<T>(*t) : nullptr; }
template <class T> T* out_data(Tensor& t) { return static_cast<T*>(t.mutable_data_ptr()); }
template <class T> T* out_data(Optional& t) { return t ? out_data<T>(*t) : nullptr; }

// Parameters and statistics [channels] of a layer; bias: of the convolution before it
struct Parameters {
  Optional mean, var, gamma, beta, bias;

  // Refuses what does not belong to `of`, which has so many channels, and makes the rest contiguous
  void check(const char* op, const Named& of, int64_t channels) {
    for (const auto& [name, t] : {std::pair<const char*, Optional*>{"running_mean", &mean},
                                  {"running_var", &var},
                                  {"weight of the normalization", &gamma},
                                  {"bias of the normalization", &beta},
                                  {"bias", &bias}}) {
      if (!*t) continue;
      common_dtype(op, {of, {name, **t}});
      check_sizes(op, {name, **t}, {channels});
      if (!(*t)->is_contiguous()) *t = torch::stable::contiguous(**t);  // a call of the dispatcher
    }
  }
};

}  // namespace convlab
