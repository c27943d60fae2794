#include "simulator/warp_mma.h"

#include <cstring>

#include "simulator/runner.h"

namespace convlab::sim {
namespace {

constexpr int kM = 16, kN = 8;

Mma& registers(void** lanes, int lane) { return *static_cast<Mma*>(lanes[lane]); }

void need_full_warp(uint32_t mask) {
  if (mask != kFullWarp) fail({"a tensor core operation needs all 32 lanes of the warp", running()->called_from});
}

// d = a b + c for A [16][k], B [k][8] of which every lane has given its parts
template <int k> void multiply(void** lanes, const float (&A)[kM][k], const float (&B)[k][kN]) {
  for (int lane = 0; lane < 32; lane++) {
    const Mma& m = registers(lanes, lane);
    const int g = lane / 4, t = lane % 4;
    float d[4];
    for (int i = 0; i < 4; i++) {
      const int row = g + 8 * (i / 2), column = 2 * t + i % 2;
      d[i] = m.c[i];
      for (int j = 0; j < k; j++) d[i] += A[row][j] * B[j][column];
    }
    std::memcpy(m.d, d, sizeof d);
  }
}

template <class Unpack> void mma_16_bit(void** lanes, uint32_t mask, Unpack unpack) {
  need_full_warp(mask);
  float A[kM][16], B[16][kN];
  for (int lane = 0; lane < 32; lane++) {
    const Mma& m = registers(lanes, lane);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; i++)
      for (int half = 0; half < 2; half++)
        A[g + 8 * (i & 1)][2 * t + 8 * (i >> 1) + half] = unpack(uint16_t(m.a[i] >> 16 * half));
    for (int i = 0; i < 2; i++)
      for (int half = 0; half < 2; half++) B[2 * t + 8 * i + half][g] = unpack(uint16_t(m.b[i] >> 16 * half));
  }
  multiply(lanes, A, B);
}

float checked_tf32(uint32_t bits, const char* operand) {
  if (bits & 0x1fff)
    fail({std::string("mma_m16n8k8_tf32: an operand of ") + operand +
              " is not rounded to tf32 (use to_tf32): " + std::to_string(float_of(bits)),
          running()->called_from});
  return float_of(bits);
}

}  // namespace

void mma_tf32(void** lanes, uint32_t mask) {
  need_full_warp(mask);
  float A[kM][8], B[8][kN];
  for (int lane = 0; lane < 32; lane++) {
    const Mma& m = registers(lanes, lane);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; i++) A[g + 8 * (i & 1)][t + 4 * (i >> 1)] = checked_tf32(m.a[i], "A");
    for (int i = 0; i < 2; i++) B[t + 4 * i][g] = checked_tf32(m.b[i], "B");
  }
  multiply(lanes, A, B);
}

void mma_bf16(void** lanes, uint32_t mask) {
  mma_16_bit(lanes, mask, [](uint16_t bits) { return float_of(uint32_t(bits) << 16); });
}

void mma_f16(void** lanes, uint32_t mask) {
  mma_16_bit(lanes, mask, [](uint16_t bits) {
    float16 h;
    h.bits = bits;
    return float(h);
  });
}

void ldmatrix(void** lanes, uint32_t mask) {
  need_full_warp(mask);
  const auto of = [&](int lane) -> Ldmatrix& { return *static_cast<Ldmatrix*>(lanes[lane]); };
  for (int matrix = 0; matrix < 4; matrix++) {
    uint16_t elements[8][8];
    for (int row = 0; row < 8; row++) {
      const char* p = static_cast<const char*>(of(8 * matrix + row).row);
      if (reinterpret_cast<uintptr_t>(p) % 16)
        fail({"ldmatrix: the address of a row is not a multiple of 16", running()->called_from});
      if (!running()->shared.contains(p))
        fail({"ldmatrix: the address of a row is not in shared memory", running()->called_from});
      std::memcpy(elements[row], p, sizeof elements[row]);
    }
    for (int lane = 0; lane < 32; lane++) {
      const int i = lane / 4, j = 2 * (lane % 4);
      of(lane).registers[matrix] = of(lane).transposed ? elements[j][i] | uint32_t(elements[j + 1][i]) << 16
                                                       : elements[i][j] | uint32_t(elements[i][j + 1]) << 16;
    }
  }
}

}  // namespace convlab::sim
