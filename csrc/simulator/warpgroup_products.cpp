#include "simulator/warpgroup_products.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <string>
#include <utility>

#include "device/wgmma.h"
#include "simulator/check.h"
#include "simulator/runner.h"

namespace convlab::sim {
namespace {

constexpr int kChunk = 16, kChunks = 2;  // bytes, and how many of a row an instruction takes
constexpr int kLineSteps = 16, kLinesOfChunk = 8;  // of an instruction whose operands have their rows side by side

// The hardware exchanges bits 4 to 6 of an address by an XOR with bits 7 to 9.
char* exchanged(Runner& runner, uint32_t address) { return runner.shared.at(address ^ (address >> 7 & 7) << 4); }

uint32_t begin_of(uint64_t matrix) { return uint32_t(matrix & 0x3fff) * 16; }
uint32_t leading_offset(uint64_t matrix) { return uint32_t(matrix >> 16 & 0x3fff) * 16; }
uint32_t stride_offset(uint64_t matrix) { return uint32_t(matrix >> 32 & 0x3fff) * 16; }

// Where a descriptor has a chunk of a row
char* chunk_of(Runner& runner, uint64_t matrix, int row, int chunk) {
  return exchanged(runner, begin_of(matrix) + row / 8 * stride_offset(matrix) + row % 8 * 128 + chunk * kChunk);
}

// Where one has a row's element of a step, if rows lie side by side: 64 of them in 128 bytes, 8 steps in 1024
char* element_of(Runner& runner, uint64_t matrix, int row, int step) {
  return exchanged(runner, begin_of(matrix) + row / 64 * leading_offset(matrix) + row % 64 * 2 +
                               step / 8 * stride_offset(matrix) + step % 8 * 128);
}

void check_descriptor(const char* operand, uint64_t matrix, bool lines, Site site) {
  const auto on_boundary = [](uint32_t address) { return address % kSwizzleBytes == 0; };
  const uint32_t begin = begin_of(matrix);
  const bool right =
      lines ? on_boundary(begin) && on_boundary(leading_offset(matrix)) && on_boundary(stride_offset(matrix))
            : begin % kSwizzleBytes < 128 && begin % 32 == 0;
  if (right && matrix >> 62 == 1 && !(matrix >> 49 & 7)) return;
  const char* where = lines ? "whose 64 rows and 8 steps begin on multiples of 1024 bytes, their"
                            : "on a multiple of 1024 bytes, and of a multiple of 32 bytes in its rows, whose";
  fail({std::string("wgmma: the descriptor of ") + operand + " must be of a tile " + where +
            " chunks exchanged in 128 bytes",
        site});
}

struct Operands {
  const WarpgroupProduct& product;
  RowsOfA rows;
};

void agree(void** lanes, uint32_t mask) {
  if (mask != ~0u) fail({"wgmma needs all 32 lanes of the warp", running()->called_from});
  const auto of = [&](int lane) -> Operands& { return *static_cast<Operands*>(lanes[lane]); };
  for (int lane = 1; lane < 32; lane++)
    if (of(lane).product.a != of(0).product.a || of(lane).product.b != of(0).product.b)
      fail({"wgmma: the lanes of a warp have different descriptors", running()->called_from});
  if (!of(0).product.registers) return;
  for (int lane = 0; lane < 32; lane++)  // register 2 chunk + half of lane 4 g + t: 4 bytes of row g + 8 half
    for (int half = 0; half < 2; half++)
      for (int i = 0; i < 8; i++)
        of(lane).rows.at[half][i] = of(lane / 4 * 4 + i % 4).product.registers[i / 4 * 2 + half];
}

template <class T> float multiply_row(float sum, const void* a, const void* b) {
  constexpr int kSteps = kChunk / int(sizeof(T));
  T x[kSteps], y[kSteps];
  std::memcpy(x, a, sizeof x), std::memcpy(y, b, sizeof y);
  for (int i = 0; i < kSteps; i++) sum += float(x[i]) * float(y[i]);
  return sum;
}

struct Truncated {  // TF32
  uint32_t bits;
  explicit operator float() const { return float_of(bits & 0xffffe000); }
};

}  // namespace

float multiply_float16(float sum, const void* a, const void* b) { return multiply_row<float16>(sum, a, b); }
float multiply_bfloat16(float sum, const void* a, const void* b) { return multiply_row<bfloat16>(sum, a, b); }
float multiply_tf32(float sum, const void* a, const void* b) { return multiply_row<Truncated>(sum, a, b); }

void WarpgroupProducts::clear() {
  pending_.clear();
  groups_ = 0;
}

// The warpgroup reads each chunk of its operands once, and its threads share them: 8 rows of a chunk at a time, or 8 steps
// of 8 rows.
void WarpgroupProducts::read(Runner& runner, const Product& p) {
  const int thread = runner.current->index % kWarpgroupThreads;
  if (p.lines) {
    for (int i = thread; i < (kWarpgroupRows + p.N) / kLinesOfChunk * kLineSteps; i += kWarpgroupThreads) {
      const int row = i / kLineSteps * kLinesOfChunk, step = i % kLineSteps;
      const char* from = row < kWarpgroupRows ? element_of(runner, p.a, row, step)
                                              : element_of(runner, p.b, row - kWarpgroupRows, step);
      check_access(runner, from, kChunk, Access::read, p.site);
    }
    return;
  }
  const int rows = p.registers ? 0 : kWarpgroupRows;
  for (int i = thread; i < (rows + p.N) * kChunks; i += kWarpgroupThreads) {
    const int row = i / (8 * kChunks) * 8 + i % 8, chunk = i / 8 % kChunks;
    const char* from = row < rows ? chunk_of(runner, p.a, row, chunk) : chunk_of(runner, p.b, row - rows, chunk);
    check_access(runner, from, kChunk, Access::read, p.site);
  }
}

void WarpgroupProducts::multiply_lines(Runner& runner, const Product& p) {
  using Steps = std::array<uint16_t, kLineSteps>;
  const auto gather = [&](uint64_t matrix, int row) {
    Steps steps;
    for (int step = 0; step < kLineSteps; step++) std::memcpy(&steps[step], element_of(runner, matrix, row, step), 2);
    return steps;
  };
  const int thread = runner.current->index % kWarpgroupThreads, g = thread % 32 / 4, t = thread % 4;
  const Steps a[2] = {gather(p.a, thread / 32 * 16 + g), gather(p.a, thread / 32 * 16 + g + 8)};
  for (int j = 0; j < p.N / 8; j++)
    for (int i = 0; i < 2; i++) {
      const Steps b = gather(p.b, 8 * j + 2 * t + i);
      for (int half = 0; half < 2; half++) {
        float& sum = p.sums[4 * j + 2 * half + i];
        for (int step = 0; step < kLineSteps; step += kChunk / 2) sum = p.multiply(sum, &a[half][step], &b[step]);
      }
    }
}

void WarpgroupProducts::multiply(Runner& runner, const Product& p) {
  if (p.lines) return multiply_lines(runner, p);
  const int thread = runner.current->index % kWarpgroupThreads, g = thread % 32 / 4, t = thread % 4;
  if (!p.adds) std::fill_n(p.sums, p.N / 2, 0.0f);
  for (int half = 0; half < 2; half++)
    for (int chunk = 0; chunk < kChunks; chunk++) {
      const void* a = p.registers ? static_cast<const void*>(p.rows.at[half] + 4 * chunk)
                                  : chunk_of(runner, p.a, thread / 32 * 16 + g + 8 * half, chunk);
      for (int j = 0; j < p.N / 8; j++)
        for (int i = 0; i < 2; i++) {
          float& sum = p.sums[4 * j + 2 * half + i];
          sum = p.multiply(sum, a, chunk_of(runner, p.b, 8 * j + 2 * t + i, chunk));
        }
    }
}

void WarpgroupProducts::check_registers(const Product& p) {
  if (p.registers && std::memcmp(p.registers, p.taken, sizeof p.taken))
    fail({"wgmma: registers of a have been written before the products were waited for", p.site});
}

void WarpgroupProducts::issue(Runner& runner, const WarpgroupProduct& product, const RowsOfA& rows, bool lines,
                              Site site) {
  if (!product.registers) check_descriptor("a", product.a, lines, site);
  check_descriptor("b", product.b, lines, site);
  const bool at_once = runner.order == Order::reverse || (runner.order == Order::random && runner.random_bit());
  Product p{product, rows, {}, lines, groups_, false, site};
  if (product.registers) std::copy_n(product.registers, std::size(p.taken), p.taken);
  pending_.push_back(p);
  read(runner, pending_.back());
  if (!at_once) return;
  for (Product& p : pending_)
    if (!std::exchange(p.done, true)) this->multiply(runner, p);
}

void WarpgroupProducts::wait(unsigned groups_that_may_be_pending) {
  Runner& runner = *running();
  TrafficCounter* const counter = std::exchange(runner.counter, nullptr);  // it counted them when they were issued
  size_t kept = 0;
  for (const Product& p : pending_) {
    if (p.group >= groups_ - int(groups_that_may_be_pending)) {
      pending_[kept++] = p;
      continue;
    }
    check_registers(p);
    read(runner, p);  // it may read as late as now
    if (!p.done) multiply(runner, p);
  }
  pending_.resize(kept, Product{});
  runner.counter = counter;
}

uint32_t shared_address(const void* p, Site site) {
  Runner& r = *running();
  const char* at = static_cast<const char*>(p);
  if (!r.shared.contains(at)) fail({"wgmma: a matrix is not in shared memory", site});
  return uint32_t(r.shared.offset_of(at));
}

namespace {

void issue(const WarpgroupProduct& product, bool lines, Site site) {
  Operands operands{product, {}};
  warp_collective("wgmma", agree, ~0u, &operands, site);
  Runner& r = *running();
  InRuntime guard(r, site);
  r.current->products.issue(r, product, operands.rows, lines, site);
}

}  // namespace

void wgmma(const WarpgroupProduct& product, Site site) { issue(product, false, site); }
void wgmma_lines(const WarpgroupProduct& product, Site site) { issue(product, true, site); }

void warpgroup_commit() { running()->current->products.commit(); }

void warpgroup_wait(unsigned groups_that_may_be_pending, Site site) {
  Runner& r = *running();
  InRuntime guard(r, site);
  r.current->products.wait(groups_that_may_be_pending);
}

}  // namespace convlab::sim
