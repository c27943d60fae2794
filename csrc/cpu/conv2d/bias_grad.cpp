// The gradient of the bias: shared among threads by channels of planes, or by slices of pixels, whose number does not
// depend on that of the threads.
#include "cpu/conv2d/bias_grad.h"

#include <numeric>

#include "cpu/conv2d/tap_tables.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"

namespace convlab {

constexpr int64_t kSlicePixels = 512;
constexpr int kFewChannels = 128;

void bias_grad(const Problem& p, const void* dy, void* db) {
  const Conv2d& g = p.g;
  const Strides strides = y_strides(p);
  const int64_t plane = int64_t(g.P) * g.Q, pixels = g.N * plane;
  if (strides.w == 1)
    return parallel_over(g.K, pixels, [&, f = kernels::sum_planes.of(p.dtype)](int64_t begin, int64_t end) {
      f(g.N, plane, strides, dy, db, begin, end);
    });
  // Rows of several pixels, where those are whole vectors and one is not
  const int64_t lanes = instruction_set().lanes(p.dtype),
                together = g.K < kFewChannels ? lanes / std::gcd(lanes, g.K) : 1, columns = together * g.K,
                slice = kSlicePixels * g.K, slices = (pixels + kSlicePixels - 1) / kSlicePixels;
  const CpuScratch memory(CpuScratch::shared, (slices * columns + g.K) * sum_bytes(p.dtype));
  char *const sums = memory.get(), *const total = sums + slices * columns * sum_bytes(p.dtype);
  parallel_over(slices, slice, [&, f = kernels::sum_slices.of(p.dtype)](int64_t begin, int64_t end) {
    f(pixels * g.K, slice, columns, dy, sums, begin, end);
  });
  kernels::add_sums.of(p.dtype)(sums, slices * together, g.K, total, db);
}

}  // namespace convlab
