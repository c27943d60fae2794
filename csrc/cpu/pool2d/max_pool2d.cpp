// Max pooling on the CPU: the operators, and which way they go.
#include "host/max_pool2d_operators.h"

#include "cpu/integer_operators.h"
#include "cpu/pool2d/pooling_plan.h"
#include "host/registration.h"

namespace convlab {
namespace {

using pooling::Pass;
using pooling::planned;

// In backward, gathering asks every window over a position for a vector of channels or of columns, and costs more the more
// taps there are; scattering adds up what each window gives, element by element.
constexpr int kGatheredTaps = 16;
constexpr int64_t kShortRow = 1024, kRowsInOrder = 16;  // elements of dx, rows of windows: they pay for their order
constexpr int kOverlapping = 4;  // windows over a column of rows that are made at once
constexpr int kScattered = 16;  // channels: a cache line of floats

struct Cpu {
  static constexpr bool takes_channels_last = true;
  const int64_t channels;  // of a position where the tensors lie channels_last, else 1
  explicit Cpu(const Tensor& output) : channels(is_channels_last(output) ? output.size(1) : 1) {}

  void forward(const Pool2d& g, DType dtype, const void* x, void* y, void* offsets) const {
    const auto plan = planned(Pass::forward, g, channels, dtype);
    plan->run([&](const Pooling& p, int64_t begin, int64_t end, char* scratch) {
      kernels::max_forward.of(dtype)(p, x, y, offsets, begin, end, scratch);
    });
  }

  void backward(const Pool2d& g, DType dtype, const void* dy, const void* offsets, void* dx) const {
    const auto plan = planned(Pass::backward, g, channels, dtype);
    const bool few = g.R * g.S <= kGatheredTaps;
    if (few && !plan->pooling().in_place && are_apart(g, dtype)) return by_order(g, dtype, dy, offsets, dx);
    if (!few || !plan->pooling().in_place)
      return in_rows(g, dtype) ? by_rows(g, dtype, dy, offsets, dx) : scatter(g, dtype, dy, offsets, dx);
    plan->run([&](const Pooling& p, int64_t begin, int64_t end, char* scratch) {
      kernels::max_gather.of(dtype)(p, dy, offsets, dx, begin, end, scratch);
    });
  }

  void gather(const Pool2d& g, DType dtype, const void* x, const void* offsets, void* y) const {
    dispatch(dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      const T* const xt = static_cast<const T*>(x);
      T* const yt = static_cast<T*>(y);
      each_winner(g, offsets, [&](int64_t i, int64_t first, int64_t h, int64_t w) {
        const bool inside = h >= 0 && h < g.H && w >= 0 && w < g.W;
        yt[i] = inside ? xt[first + (h * g.W + w) * channels] : T(0.0f);
      });
    });
  }

  void indices(const Pool2d& g, const void* offsets, long long* out) const {
    each_winner(g, offsets, [&](int64_t i, int64_t, int64_t h, int64_t w) { out[i] = h * g.W + w; });
  }

 private:
  // Whether max_apart takes them, and a good part of a vector of dx at a time
  bool are_apart(const Pool2d& g, DType dtype) const {
    const int lanes = instruction_set().lanes(dtype);
    return g.R <= g.stride_h && g.S <= g.stride_w && g.dilation_h == 1 && g.dilation_w == 1 && channels < lanes &&
           2 * channels * g.W >= lanes && channels * g.W <= kShortRow && g.planes / channels * g.P >= kRowsInOrder;
  }
  void by_order(const Pool2d& g, DType dtype, const void* dy, const void* offsets, void* dx) const {
    const pooling::Apart apart{pooling::rows_of(g), pooling::columns_of(g), g.planes / channels, int(channels)};
    const int64_t scratch =
        measured([&](Measure& memory) { pooling::ApartBench(memory, apart, instruction_set().lanes(dtype)); });
    parallel_over(apart.images, pooling::bytes_of(g, dtype) / apart.images / pooling::kBytesPerWork,
                  [&](int64_t begin, int64_t end) {
                    const CpuScratch own(CpuScratch::own, scratch);
                    kernels::max_apart.of(dtype)(apart, dy, static_cast<const uint8_t*>(offsets), dx, begin, end,
                                                 own.get());
                  });
  }

  // Whether each row of dx is made of one row of windows, as max_rows takes them
  bool in_rows(const Pool2d& g, DType dtype) const {
    return channels == 1 && g.R == 1 && g.stride_h == 1 && g.pad_h == 0 && g.dilation_w == 1 &&
           (g.stride_w == 1 || g.stride_w == 2) && g.S <= kOverlapping * g.stride_w &&
           g.Q >= instruction_set().lanes(dtype) && offsets_fit_a_byte(g);
  }
  static void by_rows(const Pool2d& g, DType dtype, const void* dy, const void* offsets, void* dx) {
    const Axis columns = pooling::columns_of(g);
    const int64_t scratch = measured(dtype, [&](Measure& memory, auto sum) {
      pooling::RowBench<decltype(sum)>(memory, columns, instruction_set().lanes(dtype));
    });
    const int64_t rows = g.planes * g.H;
    parallel_over(rows, pooling::bytes_of(g, dtype) / rows / pooling::kBytesPerWork, [&](int64_t begin, int64_t end) {
      const CpuScratch own(CpuScratch::own, scratch);
      kernels::max_rows.of(dtype)(columns, dy, static_cast<const uint8_t*>(offsets), dx, begin, end, own.get());
    });
  }

  void scatter(const Pool2d& g, DType dtype, const void* dy, const void* offsets, void* dx) const {
    const Axis rows = pooling::rows_of(g), columns = pooling::columns_of(g);
    const int reach = (g.R - 1) * g.dilation_h;
    pooling::Scattering s{.rows = rows,
                          .columns = columns,
                          .channels = channels,
                          .in_place = false,
                          .byte_offsets = offsets_fit_a_byte(g),
                          .channels_each = int(channels),
                          .rows_each = g.H,
                          .width = pooling::reached(columns),
                          .height = pooling::reached(rows)};
    // In place where every window has a tap inside dx, and the sums of what several windows give have dx's precision
    const bool inside = s.width == g.W && s.height == g.H;
    s.in_place = (inside || (g.dilation_h == 1 && g.dilation_w == 1)) &&
                 (is_sum_type(dtype) || (inside && reach < g.stride_h && (g.S - 1) * g.dilation_w < g.stride_w)) &&
                 int64_t(g.H) * g.W * channels <= INT32_MAX;
    const int64_t images = g.planes / channels, row = int64_t(s.width) * sum_bytes(dtype);
    if (s.in_place) {
      s.channels_each = pooling::split(pooling::kBlocks, images, channels, channels, 8 * kScattered);
    } else {
      s.channels_each =
          int(std::clamp<int64_t>(pooling::kMostBytes / (row * s.height), 1, std::min<int64_t>(channels, kScattered)));
      const int64_t fit = pooling::kMostBytes / (row * s.channels_each) - 2 * reach;
      s.rows_each = int(std::clamp<int64_t>(std::max<int64_t>(fit, pooling::kHalos * reach), 1, g.H));
      s.rows_each = pooling::split(pooling::kPieces, images * pooling::parts(channels, s.channels_each), g.H,
                                   s.rows_each, std::max(1, pooling::kHalos * reach));
      s.height = std::min(s.height, s.rows_each + 2 * reach + 1);
    }
    const int64_t pieces = s.in_place
                               ? images * (channels / s.channels_each)
                               : images * pooling::parts(channels, s.channels_each) * pooling::parts(g.H, s.rows_each);
    const int64_t scratch =
        measured(dtype, [&](Measure& memory, auto sum) { pooling::scatter_memory<decltype(sum)>(memory, s); });
    parallel_over(pieces, pooling::bytes_of(g, dtype) / pieces, [&](int64_t begin, int64_t end) {
      const CpuScratch own(CpuScratch::own, scratch);
      kernels::max_scatter.of(dtype)(s, dy, offsets, dx, begin, end, own.get());
    });
  }

  // Calls f(output, first element of its plane's image or row of planes, h, w) with where the winners lie in x, which
  // may be outside, from several threads
  template <class F> void each_winner(const Pool2d& g, const void* offsets, const F& f) const {
    if (offsets_fit_a_byte(g)) each_winner(g, static_cast<const uint8_t*>(offsets), f);
    else each_winner(g, static_cast<const int32_t*>(offsets), f);
  }
  template <class Offset, class F> void each_winner(const Pool2d& g, const Offset* offsets, const F& f) const {
    parallel_over(g.planes / channels * g.P, g.Q * channels, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; row++)
        for (int q = 0; q < g.Q; q++)
          for (int64_t c = 0; c < channels; c++) {
            const int64_t i = (row * g.Q + q) * channels + c;
            const int named = int(offsets[i]), tap = named >= 0 && named < g.R * g.S ? named : 0;  // the caller's data
            f(i, row / g.P * channels * g.H * g.W + c,
              int64_t(row % g.P) * g.stride_h - g.pad_h + tap / g.S * g.dilation_h,
              int64_t(q) * g.stride_w - g.pad_w + tap % g.S * g.dilation_w);
          }
    });
  }
};

std::tuple<Tensor, Tensor> forward(Tensor x, Sizes window, bool ceil_mode, bool with_offsets) {
  if (integers::is_integer(x)) return integers::max_pool2d_forward(x, window, ceil_mode, with_offsets);
  return max_pool2d_forward<Cpu>(std::move(x), std::move(window), ceil_mode, with_offsets);
}

}  // namespace
}  // namespace convlab

CONVLAB_REGISTER_CPU(m) {
  m.impl("max_pool2d_forward", TORCH_BOX(&convlab::forward));
  m.impl("max_pool2d_backward", TORCH_BOX(&convlab::max_pool2d_backward<convlab::Cpu>));
  m.impl("max_pool2d_gather", TORCH_BOX(&convlab::max_pool2d_gather<convlab::Cpu>));
  m.impl("max_pool2d_indices", TORCH_BOX(&convlab::max_pool2d_indices<convlab::Cpu>));
}
