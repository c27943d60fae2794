// Forward and dgrad by tile registers: rows are pixels of a strip's panel, whose channels lie innermost, columns are
// channels of the target, and a step sums up to 32 elements of a run of taps: those of a row of the filter lie side by
// side in the panel, so that layers of few channels have long runs, too. Two tiles of pixels meet two of channels: four
// loads for four products, which take as long as these.
//
// What bounds it: products are so fast that copying the source and rounding what is written take as long as they do where
// filters are 1 x 1 or channels few; and memory, of which a step reads 2 KB or more.
#include "cpu/conv2d/amx/run.h"

#if defined(CONVLAB_HAS_AMX) && defined(__AVX512F__)

namespace convlab::CONVLAB_ISA::amx {

constexpr int kFewChannels = 16;  // of a pixel: a vector has two or more

template <class T> CONVLAB_AMX Source look(const AmxProduct& a, const T* source, const Strip& s, uint16_t* panel) {
  const Product& p = a.product;
  source += s.n0 * p.source.n;
  if (a.in_place) return {reinterpret_cast<const char*>(source), p.source.n * 2, p.source.h * 2, p.source.w * 2, 0, 0};
  int first, last;
  rows_read(a, s, first, last);
  const int channels = a.pixel_channels, columns = a.panel_columns;
  const int64_t row = int64_t(columns) * channels, image = (last - first + 1) * row;
  const int left = a.first_column < 0 ? -a.first_column : 0, begin = left < columns ? left : columns,
            inside = p.columns.source - a.first_column,
            end = inside < begin     ? begin
                  : inside < columns ? inside
                                     : columns;
  const bool planes = p.source.w == 1 && p.source.c != 1,
             whole = planes && a.first_column == 0 && columns == p.source.h && first >= 0 &&
                     last < p.rows.source;  // rows without gaps
  for (int n = s.n0; n < s.n1; n++, source += p.source.n) {
    if (whole) {
      turn(source + first * p.source.h, p.source.c, p.depth, (last - first + 1) * columns, panel + (n - s.n0) * image,
           channels, channels);
      continue;
    }
    for (int h = first; h <= last; h++) {
      uint16_t* const to = panel + (n - s.n0) * image + (h - first) * row;
      if (h < 0 || h >= p.rows.source) {
        clear(to, row);
        continue;
      }
      clear(to, int64_t(begin) * channels), clear(to + int64_t(end) * channels, int64_t(columns - end) * channels);
      const T* from = source + h * p.source.h + (a.first_column + begin) * p.source.w;
      uint16_t* pixel = to + int64_t(begin) * channels;
      if (p.source.w == p.depth && channels <= kFewChannels) {
        widen(from, end - begin, p.depth, pixel, channels);
        continue;
      }
      if (planes) {
        turn(from, p.source.c, p.depth, end - begin, pixel, channels, channels);
        continue;
      }
      for (int w = begin; w < end; w++, from += p.source.w, pixel += channels) {
        for (int c = 0; c < channels; c += 32)
          store_halves(pixel + c, channels - c, load_halves(from + c, p.depth - c));
      }
    }
  }
  return {reinterpret_cast<const char*>(panel), image * 2, row * 2, int64_t(channels) * 2, first, a.first_column};
}

// Sums [count, kPanel] -> pixels with their channels side by side
template <class T>
CONVLAB_AMX void to_pixels(const Finishing& f, const float* sums, const float* bias, int count, int lanes, T* to,
                           int64_t step) {
  for (int m = 0; m < count; m++, to += step, sums += kPanel)
    for (int k = 0; k < lanes; k += kColumns)
      write(f, load<float>(sums + k) + load<float>(bias + k), lanes - k, to + k);
}

// Sums [count, kPanel], of up to 32 pixels -> planes, `plane` apart, of whose rows elements are a step apart. Two pixels'
// elements share a lane while lanes and pixels change places.
CONVLAB_AMX void to_planes(const Finishing& f, const float* sums, const float* bias, int count, int lanes, uint16_t* to,
                           int64_t plane, int64_t step) {
  const __m512i in_turns = (__m512i)HalfIndices{0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  for (int k = 0; k < lanes; k += kColumns) {
    const Vec<float> more = load<float>(bias + k);
    Vec<float> block[kColumns];
#pragma GCC unroll 16
    for (int m = 0; m < kColumns; m++) {
      const float* const pixel = sums + 2 * m * kPanel + k;
      block[m] = Vec<float>{};
      if (2 * m < count)
        block[m] = (Vec<float>)_mm512_maskz_permutexvar_epi16(
            0xffffffff, in_turns, f.rounded(load<float>(pixel) + more, load<float>(pixel + kPanel) + more));
    }
    transpose<float>(block);
#pragma GCC unroll 16
    for (int c = 0; c < kColumns; c++)
      if (k + c < lanes) write_apart((__m512i)block[c], count, to + (k + c) * plane, step);
  }
}
CONVLAB_AMX void to_planes(const Finishing& f, const float* sums, const float* bias, int count, int lanes, float* to,
                           int64_t plane, int64_t step) {
  for (int m0 = 0; m0 < count; m0 += kRows, sums += kRows * kPanel, to += kRows * step)
    for (int k = 0; k < lanes; k += kColumns) {
      Vec<float> block[kColumns];
#pragma GCC unroll 16
      for (int m = 0; m < kColumns; m++)
        block[m] = m0 + m < count ? load<float>(sums + m * kPanel + k) + load<float>(bias + k) : Vec<float>{};
      transpose<float>(block);
#pragma GCC unroll 16
      for (int c = 0; c < kColumns; c++)
        if (k + c < lanes) write_apart(f.activated(block[c]), count - m0, to + (k + c) * plane, step);
    }
}

// Rows [first, end) of tiles that lie so many bytes further, which come to the L2 meanwhile
struct AskedFor {
  int64_t bytes;
  int first, end;
};

// Two tiles of pixels, or one, times a panel of channels, or half of one
template <bool two, bool right>
CONVLAB_AMX void products(const Segment& g, const int64_t* runs, int64_t run_count, const char* upper,
                          const char* lower, int64_t row, const char* weights, float* sums, int64_t sums_below,
                          const AskedFor& ahead) {
  const int64_t tile = int64_t(g.depth / 2) * kRowBytes;
  clear_sums();
  for (int64_t r = 0; r < run_count; r++) {
    int64_t at = runs[r];
    for (int i = 0; i < g.blocks; i++, at += g.depth * 2, weights += 2 * tile) {
      step<two, right>(upper + at, lower + at, row, weights, tile);
      for (int m = ahead.first; m < ahead.end; m++)
        __builtin_prefetch(upper + at + ahead.bytes + m * row, 0, 2),
            __builtin_prefetch(lower + at + ahead.bytes + m * row, 0, 2);
    }
  }
  store_sums<two, right>(sums, kPanel * int64_t(sizeof(float)), sums_below, kColumns);
}

struct Pixels {
  template <class T>
  CONVLAB_AMX static Source look(const AmxProduct& a, const T* source, const Strip& s, uint16_t* to) {
    return amx::look(a, source, s, to);
  }
  static Shapes shapes(const Job& job) { return Shapes(job.cut.size, job.cut.size, job.segment.depth); }

  template <class T> CONVLAB_AMX static void multiply(const Job& job, const Meeting<T>& m) {
    const int size = job.cut.size;
    const bool right = m.lanes > kColumns;
    const auto f = right          ? m.count == 2 ? &products<true, true> : &products<false, true>
                   : m.count == 2 ? &products<true, false>
                                  : &products<false, false>;
    AskedFor ahead{};
    if (job.near_weights && m.more && job.a.in_place)
      ahead = {m.tiles[2].source - m.tiles[0].source, m.panel * size / m.panels, (m.panel + 1) * size / m.panels};
    const int64_t second = (m.joined() ? size : kRows) * kPanel;
    const char* const data = job.source.data;
    f(job.segment, job.bench.runs, job.run_count, data + m.tiles[0].source, data + m.tiles[m.count - 1].source,
      job.source.beside(job.columns), m.weights, job.bench.sums, second, ahead);
    const Strides& target = job.a.product.target;
    m.each_run(job, [&](int tile, int first, int run, T* to) __attribute__((always_inline)) {
      const float* const sums = job.bench.sums + tile * second + first * kPanel;
      const int64_t beside = job.columns.at_step * target.w;
      if (target.c == 1) to_pixels(job.finishing, sums, m.bias, run, m.lanes, to, beside);
      else to_planes(job.finishing, sums, m.bias, run, m.lanes, to, target.c, beside);
    });
  }
};

}  // namespace convlab::CONVLAB_ISA::amx

#else

namespace convlab::CONVLAB_ISA::amx {

struct Pixels;

}  // namespace convlab::CONVLAB_ISA::amx

#endif

CONVLAB_DEFINE_FOR(amx, amx::run_pieces<amx::Pixels, float>, amx::run_pieces<amx::Pixels, uint16_t>,
                   amx::run_pieces<amx::Pixels, uint16_t>, amx::run_pieces<amx::Pixels, uint16_t>)
