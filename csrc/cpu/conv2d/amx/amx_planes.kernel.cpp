// Forward and dgrad of planes by tile registers, with nothing turned: rows are channels of the target, whose weights they
// have, and columns are pixels, whose elements lie in pairs: two channels' side by side, which is how a tile wants them. So
// sums are rows of planes, and are written where they belong.
//
// The panel is taken apart by the stride, so that a tap is an address, and another tap another one; where channels are few,
// a step has those of all taps of a row. A tile's positions go on over gaps between rows, and images.
//
// What bounds it: as amx.kernel.cpp; a target of many channels is written a piece of each plane at a time.
#include "cpu/conv2d/amx/run.h"

#if defined(CONVLAB_HAS_AMX) && defined(__AVX512F__)

namespace convlab::CONVLAB_ISA::amx {

// Elements of a plane's rows, or every second: position j of a row reads data[j step], if it is in [begin, end), else zero
template <class T> struct Along {
  const T* data;
  int begin, end;

  template <int step> CONVLAB_INLINE __mmask32 inside(int j) const {  // of 16 positions
    if (step == 1) return first_lanes(end - j) & ~first_lanes(begin - j);
    return first_halves(2 * (end - j)) & ~first_halves(2 * (begin - j)) & 0x55555555;
  }
  template <int step> CONVLAB_AMX CONVLAB_INLINE __m512i load(int64_t at, __mmask32 inside) const {  // 32 bits a lane
    if constexpr (step == 1) return load_bits(data + at, __mmask16(inside));
    else return load_every_second(data + at, inside);
  }
};

// `rows` rows of two planes, `stride` apart -> pairs of them, `columns` a row
template <int step, class T>
CONVLAB_AMX CONVLAB_INLINE void pair_rows(const Along<T>& first, const Along<T>& second, int rows, int64_t stride,
                                          int columns, uint32_t* to) {
  for (int j = 0; j < columns; j += 16) {
    const __mmask32 of_first = first.template inside<step>(j), of_second = second.template inside<step>(j);
    const __mmask16 here = first_lanes(columns - j);
    for (int row = 0; row < rows; row++) {
      const int64_t at = row * stride + j * step;
      const __m512i second_half = _mm512_maskz_slli_epi32(0xffff, second.template load<step>(at, of_second), 16);
      _mm512_mask_storeu_epi32(to + int64_t(row) * columns + j, here,
                               _mm512_or_si512(first.template load<step>(at, of_first), second_half));
    }
  }
}

// A strip's rows of a group's planes -> panel, which see (PlanesPanel)
template <class T>
CONVLAB_AMX Source pair_up_planes(const AmxProduct& a, const T* source, const Strip& s, uint32_t* panel) {
  const Product& p = a.product;
  const int apart = a.columns_apart, taps = a.taps_in_panel ? a.columns[0].tap_count : 1, real = p.depth * taps;
  source += s.n0 * p.source.n;
  int first, last;
  rows_read(a, s, first, last);
  const PlanesPanel to(a, s.n1 - s.n0, last - first + 1);
  const bool whole = a.whole_rows && first >= 0 && last < p.rows.source;  // rows without gaps: they are one
  const int width = whole ? to.rows * p.columns.source : p.columns.source;
  const auto along = [&](int e, int phase) {  // of element e: from a phase's first column of row 0 on
    if (e >= real) return Along<T>{source, 0, 0};
    const int from = a.first_column + (taps > 1 ? a.columns[0].offsets[e / p.depth] : phase);
    return Along<T>{source + e % p.depth * p.source.c + from, rounded_up(-from, apart),
                    rounded_up(width - from, apart)};
  };
  for (int e = 0; e < a.elements; e += 2)
    for (int j = 0; j < a.column_phases_read; j++) {
      const Along<T> upper = along(e, j), lower = along(e + 1, j);
      for (int i = 0; i < a.row_phases_read; i++) {
        // rows [begin, end) of the phase are in the image, of which row 0 is h
        const int h = first + i, begin = least_of(rounded_up(-h, a.rows_apart), to.rows),
                  end = least_of(rounded_up(p.rows.source - h, a.rows_apart), to.rows);
        for (int n = 0; n < s.n1 - s.n0; n++) {
          uint32_t* const at = panel + e / 2 * to.pair + i * to.row_phase + j * to.column_phase + n * to.image;
          clear(at, begin * to.row);
          if (end <= begin) {
            clear(at + begin * to.row, (to.rows - begin) * to.row);
            continue;
          }
          clear(at + end * to.row, (to.rows - end) * to.row);
          const int64_t there = n * p.source.n + (h + int64_t(begin) * a.rows_apart) * p.source.h,
                        stride = a.rows_apart * p.source.h;
          const int rows = whole ? 1 : end - begin, columns = whole ? to.rows * to.columns : to.columns;
          const Along<T> above{upper.data + there, upper.begin, upper.end},
              below{lower.data + there, lower.begin, lower.end};
          uint32_t* const inside = at + begin * to.row;
          if (apart == 1) pair_rows<1>(above, below, rows, stride, columns, inside);
          else pair_rows<2>(above, below, rows, stride, columns, inside);
        }
      }
    }
  return {.data = reinterpret_cast<const char*>(panel),
          .image = to.image * 4,
          .row = to.row * 4,
          .pixel = 4,
          .row0 = first,
          .column0 = a.first_column,
          .rows_apart = a.rows_apart,
          .columns_apart = apart,
          .row_phase = to.row_phase * 4,
          .column_phase = to.column_phase * 4,
          .pair = to.pair * 4};
}

// Two tiles of channels, or one, times two of pixels, or one; a step's rows are packed
template <bool two, bool right>
CONVLAB_AMX void products(const Segment& g, const int64_t* runs, int64_t run_count, const char* weights,
                          const char* pixels, int64_t next, int64_t pair, float* sums, int64_t sums_next) {
  const int64_t row = g.depth * 2, tile = kRows * row, block = g.depth / 2 * pair;
  clear_sums();
  for (int64_t r = 0; r < run_count; r++) {
    const char* at = pixels + runs[r];
    for (int i = 0; i < g.blocks; i++, at += block, weights += 2 * tile)
      step<two, right>(weights, weights + tile, row, at, next, pair);
  }
  store_sums<two, right>(sums, kPanel * int64_t(sizeof(float)), kRows * kPanel, sums_next);
}

// Up to 32 sums of a channel with their bias -> a row of the target
CONVLAB_AMX CONVLAB_INLINE void write_row(const Finishing& f, Vec<float> left, Vec<float> right, int count,
                                          uint16_t* to, int64_t step) {
  write_apart(f.rounded(left, right), count, to, step);
}
CONVLAB_INLINE void write_row(const Finishing& f, Vec<float> left, Vec<float> right, int count, float* to,
                              int64_t step) {
  write_apart(f.activated(left), count, to, step);
  if (count > kColumns) write_apart(f.activated(right), count - kColumns, to + kColumns * step, step);
}

// Sums [lanes, kPanel] -> up to 32 elements of each plane
template <class T>
CONVLAB_AMX void to_rows(const Finishing& f, const float* sums, const float* bias, int count, int lanes, T* to,
                         int64_t plane, int64_t step) {
  for (int k = 0; k < lanes; k++, sums += kPanel, to += plane) {
    const Vec<float> more = broadcast<float>(bias[k]);
    write_row(f, load<float>(sums) + more, load<float>(sums + kColumns) + more, count, to, step);
  }
}

struct Planes {
  template <class T>
  CONVLAB_AMX static Source look(const AmxProduct& a, const T* source, const Strip& s, uint16_t* to) {
    return pair_up_planes(a, source, s, reinterpret_cast<uint32_t*>(to));
  }
  static Shapes shapes(const Job& job) {
    const int channels = least_of(job.a.product.width, kPanel);
    return Shapes(least_of(channels, kRows), channels > kRows ? channels - kRows : kRows, job.segment.depth,
                  job.cut.size);
  }

  template <class T> CONVLAB_AMX static void multiply(const Job& job, const Meeting<T>& m) {
    const bool two = m.lanes > kRows;
    const auto f = two            ? m.count == 2 ? &products<true, true> : &products<true, false>
                   : m.count == 2 ? &products<false, true>
                                  : &products<false, false>;
    const int64_t plane = job.a.product.target.c, second = m.joined() ? job.cut.size : kColumns,
                  next = m.tiles[m.count - 1].source - m.tiles[0].source;
    m.each_run(job, [&](int, int, int, T* to) __attribute__((always_inline)) {
      for (int k = 0; k < m.lanes; k++) __builtin_prefetch(to + k * plane, 1);
    });
    f(job.segment, job.bench.runs, job.run_count, m.weights, job.source.data + m.tiles[0].source, next, job.source.pair,
      job.bench.sums, second);
    m.each_run(job, [&](int tile, int first, int run, T* to) __attribute__((always_inline)) {
      to_rows(job.finishing, job.bench.sums + tile * second + first, m.bias, run, m.lanes, to, plane,
              job.columns.at_step);
    });
  }
};

}  // namespace convlab::CONVLAB_ISA::amx

#else

namespace convlab::CONVLAB_ISA::amx {

struct Planes;

}  // namespace convlab::CONVLAB_ISA::amx

#endif

CONVLAB_DEFINE_FOR(amx_planes, amx::run_pieces<amx::Planes, float>, amx::run_pieces<amx::Planes, uint16_t>,
                   amx::run_pieces<amx::Planes, uint16_t>, amx::run_pieces<amx::Planes, uint16_t>)
