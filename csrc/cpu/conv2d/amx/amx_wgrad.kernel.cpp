// wgrad by tile registers: a tile of dw has 16 channels of x as rows and 16 of dy as columns, and a step sums 32
// positions. x lies in planes, of which a step reads 32 elements from anywhere; dy in pairs of positions. Two tiles of
// each meet, for one tap at a time; a strip's planes stay in the L2 for all taps.
#include "cpu/conv2d/amx/pairs.h"
#include "cpu/conv2d/strips.h"

#if defined(CONVLAB_HAS_AMX) && defined(__AVX512F__)

namespace convlab::CONVLAB_ISA::amx {

struct Positions {
  int images, rows, columns;
  int64_t steps;

  Positions(const AmxWgrad& a, const Strip& s)
      : images(s.n1 - s.n0), rows(s.row1 - s.row0), columns(a.product.columns.target) {
    const int64_t all = (int64_t(images - 1) * a.image_rows + rows - 1) * a.pitch + columns;
    steps = (all + kDepth - 1) / kDepth;
  }
};

// Vectors [first, last) of dy's channels, of a strip -> panel [vectors, pairs, kColumns, 2]
template <class T>
CONVLAB_AMX void take_grad(const AmxWgrad& a, const T* dy, const Strip& s, const Positions& all, int first, int last,
                           uint16_t* panel) {
  const Product& p = a.product;
  const int64_t vector = all.steps * kDepth * kColumns;
  for (int v = first; v < last; v++, panel += vector) {
    const int channels = p.width - v * kColumns < kColumns ? p.width - v * kColumns : kColumns;
    uint16_t* to = panel;
    for (int n = 0; n < all.images; n++) {
      to = panel + int64_t(n) * a.image_rows * a.pitch * kColumns;
      for (int row = 0; row < all.rows; row++) {
        const T* const from = dy + v * kColumns * p.target.c + (s.n0 + n) * p.target.n + (s.row0 + row) * p.target.h;
        const bool last = n == all.images - 1 && row == all.rows - 1;
        const int padded = last ? int(round_up(all.columns, 2)) : a.pitch;
        if (p.target.c == 1) pair_up(from, p.target.w, all.columns, channels, to, padded);
        else turn_pairs(from, p.target.c, channels, all.columns, to, padded);
        to += int64_t(padded) * kColumns;
      }
      if (n == all.images - 1) continue;
      uint16_t* const next = panel + int64_t(n + 1) * a.image_rows * a.pitch * kColumns;
      if (next > to) clear(to, next - to);
    }
    clear(to, panel + vector - to);
  }
}

// Along one dimension, elements u of a padded row that are `phase` and then a stride apart: [begin, end) are of x, `from`
// the first of them
struct Along {
  int begin, end, from;

  Along(const Axis& axis, int phase, int first, int count) {
    // element i is at position first + i stride + phase - pad
    const int at = first + phase - axis.pad;
    begin = at < 0 ? (-at + axis.stride - 1) / axis.stride : 0;
    end = at >= axis.size ? 0 : (axis.size - at + axis.stride - 1) / axis.stride;
    if (end > count) end = count;
    if (begin > end) begin = end;
    from = at + begin * axis.stride;
  }
};

// `channels` channels of x -> planes [channels, phases, plane]
template <class T>
CONVLAB_AMX void take_planes(const AmxWgrad& a, const T* x, const Strip& s, const Positions& all, int channels,
                             uint16_t* panel) {
  const Product& p = a.product;
  const Axis &v = a.vertical, &h = a.horizontal;
  const int64_t channel = a.planes() * a.plane;
  for (int c = 0; c < channels; c++) clear(panel + c * channel, channel);
  for (int n = 0; n < all.images; n++)
    for (int i = 0; i < a.row_phases; i++) {
      const int most = all.rows + ((v.kernel - 1) * v.dilation - i) / v.stride;  // rows that taps of the phase reach
      const Along rows(v, i, s.row0 * v.stride, most);
      for (int row = rows.begin; row < rows.end; row++)
        for (int j = 0; j < a.column_phases; j++) {
          const Along columns(h, j, 0, all.columns + ((h.kernel - 1) * h.dilation - j) / h.stride);
          const int count = columns.end - columns.begin;
          if (!count) continue;
          const T* from = x + (s.n0 + n) * p.source.n + (rows.from + (row - rows.begin) * v.stride) * p.source.h +
                          columns.from * p.source.w;
          uint16_t* to =
              panel + (i * a.column_phases + j) * a.plane + (int64_t(n) * a.image_rows + row) * a.pitch + columns.begin;
          if (p.source.c == 1 && channels > 1) {
            turn(from, p.source.w * h.stride, count, channels, to, channel, int(round_up(count, 2)));
            continue;
          }
          for (int c = 0; c < channels; c++, from += p.source.c, to += channel) {
            if (h.stride == 1 && p.source.w == 1) copy_halves(from, count, to);
            else if (h.stride == 2 && p.source.w == 1)
              for (int q = 0; q < count; q += 16) {
                const __mmask32 inside = first_halves(2 * (count - q)) & 0x55555555;
                const __m512i some = load_every_second(from + 2 * q, inside);
                _mm256_mask_storeu_epi16(to + q, first_lanes(count - q), _mm512_maskz_cvtepi32_epi16(0xffff, some));
              }
            else
              for (int q = 0; q < count; q++) to[q] = bits_of(from + q * h.stride * p.source.w);
          }
        }
    }
}

// Tiles of dw: two of rows or one, two of columns or one
template <bool lower, bool right>
CONVLAB_AMX void sum_positions(const char* x, const char* below, int64_t row, const char* dy, int64_t vector,
                               int64_t steps, bool begins, float* sums, int64_t sums_below, int64_t sums_right) {
  if (begins) clear_sums();
  else {
    float* const second = sums + sums_below;
    _tile_loadd(0, sums, kRowBytes);
    if (right) _tile_loadd(1, sums + sums_right, kRowBytes);
    if (lower) _tile_loadd(2, second, kRowBytes);
    if (lower && right) _tile_loadd(3, second + sums_right, kRowBytes);
  }
  for (int64_t i = 0; i < steps; i++, x += kRowBytes, below += kRowBytes, dy += kRows * kRowBytes)
    step<lower, right>(x, below, row, dy, vector);
  store_sums<lower, right>(sums, kRowBytes, sums_below, sums_right);
}

// A strip's products of a block of channels of x and some vectors of dy's
CONVLAB_AMX inline void block(const AmxWgrad& a, const Positions& all, const uint16_t* x, int channels,
                              const uint16_t* dy, int vectors, bool begins, float* sums) {
  const Axis &v = a.vertical, &h = a.horizontal;
  const int upper = least_of(channels, kRows), lower = channels - upper;
  const int64_t row = a.planes() * a.plane * 2, vector = all.steps * kDepth * kColumns * 2;  // bytes
  const int64_t tap_sums = int64_t(a.product.depth) * kColumns, vector_sums = tap_sums * v.kernel * h.kernel;
  shape(Shapes(upper, lower ? lower : upper, kDepth));
  for (int i = 0; i < vectors; i += 2)
    for (int r = 0; r < v.kernel; r++)
      for (int s = 0; s < h.kernel; s++) {
        const int down = r * v.dilation, across = s * h.dilation;
        const char* const from =
            reinterpret_cast<const char*>(x + (down % v.stride * a.column_phases + across % h.stride) * a.plane +
                                          int64_t(down / v.stride) * a.pitch + across / h.stride);
        const bool right = i + 1 < vectors;
        const auto f = lower   ? right ? &sum_positions<true, true> : &sum_positions<true, false>
                       : right ? &sum_positions<false, true>
                               : &sum_positions<false, false>;
        f(from, from + kRows * row, row, reinterpret_cast<const char*>(dy) + i * vector, vector, all.steps, begins,
          sums + i * vector_sums + (r * h.kernel + s) * tap_sums, kRows * kColumns, vector_sums);
      }
}

template <class T>
CONVLAB_AMX void wgrad(const AmxWgrad& a, const T* dy, const T* x, float* sums, int64_t begin, int64_t end,
                       char* scratch) {
  Carver carver{scratch};
  const AmxWgradBench bench(carver, a);
  const Product& p = a.product;
  const int64_t strips = p.strips();
  const int parts = a.parts();
  for (int64_t piece = begin, last; piece < end; piece = last) {  // the parts of one share of dy that are here
    const int64_t index = piece / parts, share = index % a.shares(), slice_and_group = index / a.shares();
    last = (index + 1) * parts < end ? (index + 1) * parts : end;
    const int64_t group = slice_and_group % p.groups, slice = slice_and_group / p.groups;
    const int first_vector = int(share) * 2 * a.pairs_per_share,
              last_vector = least_of(first_vector + 2 * a.pairs_per_share, a.vectors()),
              first_block = int(piece % parts) * a.blocks_per_part,
              last_block = least_of(int((last - 1) % parts + 1) * a.blocks_per_part, a.blocks());
    const int64_t vector_sums = a.sums() / a.vectors(), first_strip = slice * strips / a.slices;
    float* const own = sums + slice_and_group * a.sums() + first_vector * vector_sums;
    for (int64_t i = first_strip; i < (slice + 1) * strips / a.slices; i++) {
      const Strip s = strip_of(p, i);
      const Positions all(a, s);
      take_grad(a, dy + group * p.width * p.target.c, s, all, first_vector, last_vector, bench.dy);
      for (int b = first_block; b < last_block; b++) {
        const int c0 = b * kPanel, channels = least_of(p.depth - c0, kPanel);
        take_planes(a, x + (group * p.depth + c0) * p.source.c, s, all, channels, bench.x);
        block(a, all, bench.x, channels, bench.dy, last_vector - first_vector, i == first_strip,
              own + int64_t(c0) * kColumns);
      }
    }
  }
  _tile_release();
}

}  // namespace convlab::CONVLAB_ISA::amx

#else

namespace convlab::CONVLAB_ISA::amx {

template <class T> void wgrad(const convlab::amx::AmxWgrad&, const T*, const T*, float*, int64_t, int64_t, char*) {}

}  // namespace convlab::CONVLAB_ISA::amx

#endif

CONVLAB_DEFINE_FOR(amx_wgrad, amx::wgrad<float>, amx::wgrad<uint16_t>, amx::wgrad<uint16_t>, amx::wgrad<uint16_t>)
