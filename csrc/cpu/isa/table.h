// The table of this instruction set's kernels; the last thing that a file of csrc/cpu/isa includes.
#pragma once
#include "cpu/isa/avg_pool2d.h"
#include "cpu/isa/bias_grad.h"
#include "cpu/isa/depthwise_wgrad.h"
#include "cpu/isa/direct.h"
#include "cpu/isa/direct_wgrad.h"
#include "cpu/isa/max_pool2d.h"
#include "cpu/isa/packed_weights.h"
#include "cpu/isa/register_tiled.h"
#include "cpu/isa/register_tiled_wgrad.h"
#include "cpu/kernels.h"

namespace convlab::CONVLAB_ISA {

template <class T> constexpr ConvFunctions conv_functions() {
  using A = acc_t<T>;
  return {
      [](const Filters& f, const void* w, void* packed, int64_t begin, int64_t end) {
        pack_weights<T>(f, static_cast<const T*>(w), static_cast<A*>(packed), begin, end);
      },
      [](const Filters& f, const void* packed, int slices, int64_t slice, void* w, int64_t begin, int64_t end) {
        unpack_weights<T>(f, static_cast<const A*>(packed), slices, slice, static_cast<T*>(w), begin, end);
      },
      [](const Product& p, const Filters& f, const void* source, const void* w, const void* weights, const void* bias,
         void* target, int64_t begin, int64_t end, char* scratch) {
        register_tiled::run<T>(p, f, static_cast<const T*>(source), static_cast<const T*>(w),
                               static_cast<const A*>(weights), static_cast<const A*>(bias), static_cast<T*>(target),
                               begin, end, scratch);
      },
      [](const Product& p, const Filters& f, const Axis& rows, const Axis& columns, int slices, const void* dy,
         const void* x, void* dw, void* sums, int64_t begin, int64_t end, char* scratch) {
        register_tiled::wgrad<T>(p, f, rows, columns, slices, static_cast<const T*>(dy), static_cast<const T*>(x),
                                 static_cast<T*>(dw), static_cast<A*>(sums), begin, end, scratch);
      },
      &direct::channels_of_tile,
      [](const RowProduct& p, const void* source, const void* weights, const void* bias, void* target, int64_t begin,
         int64_t end, char* scratch) {
        direct::run<T>(p, static_cast<const T*>(source), static_cast<const A*>(weights), static_cast<const A*>(bias),
                       static_cast<T*>(target), begin, end, scratch);
      },
      [](const RowProduct& p, const Axis& rows, int slices, const void* dy, const void* x, void* partial, int64_t begin,
         int64_t end, char* scratch) {
        direct::wgrad<T>(p, rows, slices, static_cast<const T*>(dy), static_cast<const T*>(x), static_cast<A*>(partial),
                         begin, end, scratch);
      },
      [](const Depthwise& d, const void* source, const void* weights, const void* bias, void* target, int64_t begin,
         int64_t end, char* scratch) {
        depthwise::run<T>(d, static_cast<const T*>(source), static_cast<const A*>(weights), static_cast<const A*>(bias),
                          static_cast<T*>(target), begin, end, scratch);
      },
      [](const Depthwise& d, int slices, const void* dy, const void* x, void* sums, int64_t begin, int64_t end,
         char* scratch) {
        depthwise::wgrad<T>(d, slices, static_cast<const T*>(dy), static_cast<const T*>(x), static_cast<A*>(sums),
                            begin, end, scratch);
      },
      [](int images, int64_t plane, const Strides& strides, int channels, const void* dy, void* db, int64_t begin,
         int64_t end) {
        bias_grad<T>(images, plane, strides, channels, static_cast<const T*>(dy), static_cast<T*>(db), begin, end);
      },
  };
}

template <class T, class M> constexpr MaxPoolFunctions max_pool_functions() {
  return {
      [](const Pooling& g, const void* x, void* y, void* offsets, int64_t begin, int64_t end, char* scratch) {
        max_forward(g, static_cast<const T*>(x), static_cast<T*>(y), static_cast<M*>(offsets), begin, end, scratch);
      },
      [](const Pooling& g, const void* dy, const void* offsets, void* dx, int64_t begin, int64_t end, char* scratch) {
        max_backward(g, static_cast<const T*>(dy), static_cast<const M*>(offsets), static_cast<T*>(dx), begin, end,
                     scratch);
      },
  };
}

template <class T> constexpr AvgPoolFunctions avg_pool_functions() {
  return {
      [](const Pooling& g, const Averages& a, const void* x, void* y, int64_t begin, int64_t end, char* scratch) {
        average_forward(g, a, static_cast<const T*>(x), static_cast<T*>(y), begin, end, scratch);
      },
      [](const Pooling& g, const Averages& a, const void* dy, void* dx, int64_t begin, int64_t end, char* scratch) {
        average_backward(g, a, static_cast<const T*>(dy), static_cast<T*>(dx), begin, end, scratch);
      },
  };
}

#define CONVLAB_TEXT_OF(name) #name
#define CONVLAB_TEXT(name) CONVLAB_TEXT_OF(name)

extern const CpuKernels kernels_;
const CpuKernels kernels_ = {CONVLAB_TEXT(CONVLAB_ISA),
                             kVectorBytes,
                             kTilePixels,
                             kTileVectors,
                             {conv_functions<float>(), conv_functions<double>(), conv_functions<float16>(),
                              conv_functions<bfloat16>()},  // by DType
                             {max_pool_functions<float, uint8_t>(), max_pool_functions<double, uint8_t>(),
                              max_pool_functions<float16, uint8_t>(), max_pool_functions<bfloat16, uint8_t>()},
                             {max_pool_functions<float, int32_t>(), max_pool_functions<double, int32_t>(),
                              max_pool_functions<float16, int32_t>(), max_pool_functions<bfloat16, int32_t>()},
                             {avg_pool_functions<float>(), avg_pool_functions<double>(), avg_pool_functions<float16>(),
                              avg_pool_functions<bfloat16>()}};

}  // namespace convlab::CONVLAB_ISA
