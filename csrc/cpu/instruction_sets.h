// The instruction sets that the CPU's kernels are compiled for, the best first. setup.py has the compiler's flags of
// each. Which one a process uses is decided once, when it is first asked. Torch-free.
#pragma once
#include "dtype.h"

namespace convlab {

struct InstructionSet {
  const char* name;
  int vector_bytes;
  int tile_pixels, tile_vectors;  // of a register tile: its sums, with what they are made of, fill the registers
  int most_vectors;  // of a tile that has fewer pixels for them

  constexpr int lanes(DType dtype) const { return vector_bytes / sum_bytes(dtype); }
  constexpr bool many_registers() const { return tile_pixels > 8; }  // 32 rather than 16
};

namespace avx512 {  // 32 registers: 24 of sums, 2 to 4 of weights, 1 broadcast
constexpr InstructionSet kSet{
    .name = "avx512", .vector_bytes = 64, .tile_pixels = 12, .tile_vectors = 2, .most_vectors = 4};
}
namespace avx2 {  // AVX2 and FMA, 16 registers: 12 of sums, 2 or 3 of weights, 1 broadcast
constexpr InstructionSet kSet{
    .name = "avx2", .vector_bytes = 32, .tile_pixels = 6, .tile_vectors = 2, .most_vectors = 3};
}
namespace baseline {  // any machine; SSE2 on x86, NEON on ARM
constexpr InstructionSet kSet{
    .name = "baseline", .vector_bytes = 16, .tile_pixels = 6, .tile_vectors = 2, .most_vectors = 2};
}

// Calls f(set, ...) for each set that the build has kernels of
#if !defined(CONVLAB_EACH_SET)
#if defined(__x86_64__)
#define CONVLAB_EACH_SET(f, ...) f(avx512, __VA_ARGS__) f(avx2, __VA_ARGS__) f(baseline, __VA_ARGS__)
#else
#define CONVLAB_EACH_SET(f, ...) f(baseline, __VA_ARGS__)
#endif
#endif

#define CONVLAB_PLUS_ONE(set, ...) +1
constexpr int kSets = 0 CONVLAB_EACH_SET(CONVLAB_PLUS_ONE);

// The best this machine has, or what CONVLAB_CPU names ("amx" is AVX-512 and more): its number among the sets of the build. Throws
// std::runtime_error where that is no such name, or not on this machine.
int set_in_use();
const InstructionSet& instruction_set();  // the same

// Whether kernels of AVX-512 may use the tile registers of AMX, for bfloat16: the machine has them, the system lets this
// process use them, and CONVLAB_CPU does not name a set: it may say "amx"
bool has_amx();

#if defined(__x86_64__) && defined(__linux__) && !defined(__clang__) && __GNUC__ >= 11  // clang: not tried
#define CONVLAB_HAS_AMX
#endif

}  // namespace convlab
