// The CPU kernels as a table of functions, one table an instruction set. csrc/cpu/isa is compiled once for each, with
// the compiler's flags for it (setup.py); which table is used is decided once, when the library is first asked.
// Torch-free.
#pragma once
#include <cstdint>

#include "cpu/depthwise.h"
#include "cpu/pooling.h"
#include "cpu/product.h"
#include "dtype.h"

namespace convlab {

// For tensors of one element type; sums, packed weights and bias are of its acc_t. Each function makes the pieces
// [begin, end) of its work, and the caller spreads them over threads.
struct ConvFunctions {
  void (*pack_weights)(const Filters&, const void* w, void* packed, int64_t begin, int64_t end);
  void (*unpack_weights)(const Filters&, const void* packed, int slices, int64_t slice, void* w, int64_t begin,
                         int64_t end);

  // register_tiled
  void (*tiled)(const Product&, const Filters&, const void* source, const void* w, const void* weights,
                const void* bias, void* target, int64_t begin, int64_t end, char* scratch);
  void (*tiled_wgrad)(const Product&, const Filters&, const Axis& rows, const Axis& columns, int slices, const void* dy,
                      const void* x, void* dw, void* sums, int64_t begin, int64_t end, char* scratch);

  // direct; `channels_of_tile` says how many channels of the `left` ones the next tile has, which is how its weights
  // are packed
  int (*channels_of_tile)(int left);
  void (*direct)(const RowProduct&, const void* source, const void* weights, const void* bias, void* target,
                 int64_t begin, int64_t end, char* scratch);
  void (*direct_wgrad)(const RowProduct&, const Axis& rows, int slices, const void* dy, const void* x, void* partial,
                       int64_t begin, int64_t end, char* scratch);

  // depthwise: weights [vectors of channels, R S, L], or [channels, R S] among planes; sums are like weights, for each
  // slice
  void (*depthwise)(const Depthwise&, const void* source, const void* weights, const void* bias, void* target,
                    int64_t begin, int64_t end, char* scratch);
  void (*depthwise_wgrad)(const Depthwise&, int slices, const void* dy, const void* x, void* sums, int64_t begin,
                          int64_t end, char* scratch);

  void (*bias_grad)(int images, int64_t plane, const Strides& dy, int channels, const void* from, void* db,
                    int64_t begin, int64_t end);
};

// Of max pooling, for offsets of a byte, or of an int
struct MaxPoolFunctions {
  void (*forward)(const Pooling&, const void* x, void* y, void* offsets, int64_t begin, int64_t end,
                  char* scratch);  // offsets may be null
  void (*backward)(const Pooling&, const void* dy, const void* offsets, void* dx, int64_t begin, int64_t end,
                   char* scratch);
};

struct AvgPoolFunctions {
  void (*forward)(const Pooling&, const Averages&, const void* x, void* y, int64_t begin, int64_t end, char* scratch);
  void (*backward)(const Pooling&, const Averages&, const void* dy, void* dx, int64_t begin, int64_t end,
                   char* scratch);
};

struct CpuKernels {
  const char* name;
  int vector_bytes;
  int tile_pixels, tile_vectors;  // of a register tile
  ConvFunctions conv[4];  // by DType
  MaxPoolFunctions max_pool[4], max_pool_int[4];
  AvgPoolFunctions avg_pool[4];

  int lanes(DType dtype) const { return vector_bytes / (dtype == DType::float64 ? 8 : 4); }
};

// The best this machine has, or what CONVLAB_CPU names. Throws std::runtime_error where that is no such name, or not on
// this machine.
const CpuKernels& cpu_kernels();

}  // namespace convlab
