// The kernels for x86 with AVX-512: 32 registers of 64 bytes.
#define CONVLAB_ISA avx512
namespace convlab::avx512 {
constexpr int kVectorBytes = 64;
constexpr int kTilePixels = 12, kTileVectors = 2;  // 24 registers of sums, 2 of weights, 1 broadcast
}  // namespace convlab::avx512

#include "cpu/isa/table.h"
