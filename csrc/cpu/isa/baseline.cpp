// The kernels for any machine, with vectors of 16 bytes: SSE2 on x86, NEON on ARM.
#define CONVLAB_ISA baseline
namespace convlab::baseline {
constexpr int kVectorBytes = 16;
constexpr int kTilePixels = 6, kTileVectors = 2;  // 12 registers of sums, 2 of weights, 1 broadcast
}  // namespace convlab::baseline

#include "cpu/isa/table.h"
