// The kernels for x86 with AVX2 and FMA: 16 registers of 32 bytes.
#define CONVLAB_ISA avx2
namespace convlab::avx2 {
constexpr int kVectorBytes = 32;
constexpr int kTilePixels = 6, kTileVectors = 2;  // 12 registers of sums, 2 of weights, 1 broadcast
}  // namespace convlab::avx2

#include "cpu/isa/table.h"
