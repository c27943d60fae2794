// Forward and dgrad by tile registers: rows are pixels of a strip's panel, whose channels lie innermost, columns are
// channels of the target, and a step sums up to 32 elements of a run of taps: those of a row of the filter lie side by
// side in the panel, so that layers of few channels have long runs, too. Two tiles of pixels meet two of channels: four
// loads for four products, which take as long as these.
//
// What bounds it: products are so fast that copying the source and rounding what is written take as long as they do where
// filters are 1 x 1 or channels few; and memory, of which a step reads 2 KB or more.
#include "cpu/conv2d/amx/pairs.h"
#include "cpu/conv2d/block/ending.h"
#include "cpu/conv2d/packed_weights.h"
#include "cpu/conv2d/strips.h"

#if defined(CONVLAB_HAS_AMX) && defined(__AVX512F__)

namespace convlab::CONVLAB_ISA::amx {

constexpr int kFewChannels = 16;  // of a pixel: a vector has two or more

// A strip's source: rows of images from `row0` on, in a panel or where it lies
struct Source {
  const char* data;
  int64_t image, row, pixel;  // bytes
  int row0;
};

// Positions [begin, end) of a phase whose targets lie in [row0, row1)
struct Lines {
  int begin, end;
};
CONVLAB_INLINE int rounded_up(int a, int b) { return a <= 0 ? 0 : (a + b - 1) / b; }
CONVLAB_INLINE Lines lines_of(const Phase& p, int row0, int row1) {
  const int begin = rounded_up(row0 - p.at, p.at_step), end = rounded_up(row1 - p.at, p.at_step);
  return {begin < p.count ? begin : p.count, end < p.count ? end : p.count};
}

inline Source look(const AmxProduct& a, const uint16_t* source, const Strip& s, int group, uint16_t* panel) {
  const Product& p = a.product;
  source += int64_t(group) * p.depth * p.source.c + s.n0 * p.source.n;
  if (a.in_place) return {reinterpret_cast<const char*>(source), p.source.n * 2, p.source.h * 2, p.source.w * 2, 0};
  int first = 0, last = -1;
  for (int i = 0; i < a.row_phases; i++) {
    const Phase& rows = a.rows[i];
    const Lines lines = lines_of(rows, s.row0, s.row1);
    if (!rows.tap_count || lines.begin >= lines.end) continue;
    const int from = rows.from + lines.begin * rows.from_step,
              end = rows.from + (lines.end - 1) * rows.from_step + rows.offsets[rows.tap_count - 1];
    const bool none = last < first;
    first = none || from < first ? from : first, last = none || last < end ? end : last;
  }
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
      const uint16_t* from = source + h * p.source.h + (a.first_column + begin) * p.source.w;
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
  return {reinterpret_cast<const char*>(panel), image * 2, row * 2, int64_t(channels) * 2, first};
}

// How a segment's positions become rows of tiles: of a row of the target each, or, where nothing but a gap is between
// rows, of an image or of all images, gaps included
struct Cut {
  int tile_rows;  // in pixels of the source: of a tile register
  int64_t count;  // tiles
};

// Of the tiles of a segment; cost: what products of so many rows take, measured
CONVLAB_INLINE double cost(int64_t tiles, int rows) { return double(tiles) * (13 + 0.28 * rows); }

inline Cut cut(const AmxProduct& a, const Segment& g, const Source& source, const Strip& s, const Lines& lines,
               PixelTile* tiles) {
  const Phase &rows = a.rows[g.rows], &columns = a.columns[g.columns];
  const int images = s.n1 - s.n0, count = lines.end - lines.begin, width = columns.count;
  const int64_t step = columns.from_step * source.pixel, pitch = source.row * rows.from_step;
  const bool read = rows.tap_count && columns.tap_count;  // of what no tap reaches nothing is
  const bool merges = read && pitch % step == 0, merges_all = merges && source.image % pitch == 0;
  // from a row to the next, and from an image to the next
  const int64_t in_pitch = merges ? pitch / step : width, in_image = merges ? source.image / step : width;
  struct Way {
    int64_t runs, length;
  };
  const Way ways[] = {{int64_t(images) * count, width},
                      {images, (count - 1) * in_pitch + width},
                      {1, (images - 1) * in_image + (count - 1) * in_pitch + width}};
  int best = 0;
  Cut cuts[3];
  for (int w = 0; w < (merges_all ? 3 : merges ? 2 : 1); w++) {
    const int64_t in_run = (ways[w].length + kRows - 1) / kRows;
    cuts[w] = {int((ways[w].length + in_run - 1) / in_run), ways[w].runs * in_run};
    if (cuts[w].count <= cuts[0].count &&
        cost(cuts[w].count, cuts[w].tile_rows) < cost(cuts[best].count, cuts[best].tile_rows))
      best = w;
  }
  const Cut c = cuts[best];
  const int64_t in_run = c.count / ways[best].runs,
                first = (int64_t(rows.from) + lines.begin * rows.from_step - source.row0) * source.row +
                        (columns.from - a.first_column) * source.pixel;
  for (int64_t run = 0; run < ways[best].runs; run++) {
    const int n0 = int(best == 0 ? run / count : best == 1 ? run : 0), row0 = int(best == 0 ? run % count : 0);
    for (int64_t i = 0; i < in_run; i++) {
      const int64_t last = ways[best].length - c.tile_rows, at = i * c.tile_rows < last ? i * c.tile_rows : last;
      const int64_t image = best == 2 ? at / in_image : 0, line = best ? (at - image * in_image) / in_pitch : 0;
      *tiles++ = {first + n0 * source.image + row0 * pitch + at * step, n0 + int(image), row0 + int(line),
                  int(at - image * in_image - line * in_pitch)};
    }
  }
  return c;
}

// Where a segment's sums become elements of the target
struct Landing {
  const AmxProduct& a;
  Strip strip;
  Lines lines;
  const Phase &rows, &columns;
  int64_t in_pitch, in_image;  // positions from row to row and from image to image

  // f(first, count, to) for the runs of a tile's positions that lie in a row of the target, `to` where the first one's
  // element of channel 0 goes
  template <class F> CONVLAB_INLINE void each(const PixelTile& tile, int count, uint16_t* target, const F& f) const {
    const Product& p = a.product;
    int n = tile.n, row = tile.row, column = tile.column;
    for (int m = 0; m < count;) {
      int64_t gap = 0;
      if (column >= columns.count) gap = in_pitch - column, column = 0, row++;  // between rows
      else if (row >= lines.end - lines.begin) gap = in_image - row * in_pitch - column, column = 0, row = 0, n++;
      if (gap) {
        if (gap >= count - m) return;
        m += int(gap);
        continue;
      }
      const int left = columns.count - column, run = left < count - m ? left : count - m;
      const int h = rows.at + (lines.begin + row) * rows.at_step, w = columns.at + column * columns.at_step;
      f(m, run, target + (strip.n0 + n) * p.target.n + h * p.target.h + w * p.target.w);
      m += run, column += run;
      if (column == columns.count && in_pitch == column) column = 0, row++;
    }
  }
};

// What sums of 16 channels become beside their bias
struct Finishing {
  const float* bias;
  const Ending& ending;
  bool activates;

  CONVLAB_AMX CONVLAB_INLINE Vec<float> of(const float* sums, int half) const {
    Vec<float> v[1] = {load<float>(sums + half * kColumns) + load<float>(bias + half * kColumns)};
    if (!activates) return v[0];
    const __m256i written = (__m256i)_mm512_cvtneps_pbh((__m512)v[0]);  // as the layer alone has it
    v[0] = load_half(reinterpret_cast<const bfloat16*>(&written));
    activate<float>(ending, v);
    return v[0];
  }
  // The instruction takes subnormal numbers for zeros, and an activation, as the layer alone, does not
  CONVLAB_AMX CONVLAB_INLINE void write(Vec<float> v, int count, uint16_t* to) const {
    CONVLAB_TOUCHES(to, count * sizeof(uint16_t));
    __m256i bits;
    if (activates) store_half(reinterpret_cast<bfloat16*>(&bits), v);
    else bits = (__m256i)_mm512_cvtneps_pbh((__m512)v);
    _mm256_mask_storeu_epi16(to, first_lanes(count), bits);
  }
};

// Sums [count, kPanel] -> pixels with their channels side by side
CONVLAB_AMX void to_pixels(const Finishing& f, const float* sums, int count, int lanes, uint16_t* to, int64_t step) {
  for (int m = 0; m < count; m++, to += step, sums += kPanel)
    for (int half = 0; half * kColumns < lanes; half++)
      f.write(f.of(sums, half), lanes - half * kColumns, to + half * kColumns);
}

// Sums [count, kPanel] -> planes, `plane` apart, of whose rows elements are a step apart
CONVLAB_AMX void to_planes(const Finishing& f, const float* sums, int count, int lanes, uint16_t* to, int64_t plane,
                           int64_t step) {
  for (int half = 0; half * kColumns < lanes; half++, to += kColumns * plane) {
    Vec<float> block[kColumns];
#pragma GCC unroll 16
    for (int m = 0; m < kColumns; m++) block[m] = m < count ? f.of(sums + m * kPanel, half) : Vec<float>{};
    transpose<float>(block);
    const int channels = lanes - half * kColumns;
#pragma GCC unroll 16
    for (int c = 0; c < kColumns; c++) {
      if (c >= channels) break;
      if (step == 1) {
        f.write(block[c], count, to + c * plane);
        continue;
      }
      uint16_t elements[kColumns];
      f.write(block[c], kColumns, elements);
      for (int m = 0; m < count; m++) to[c * plane + m * step] = elements[m];
    }
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
                          const char* lower, int64_t row, const char* weights, float* sums, const AskedFor& ahead) {
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
  store_sums<two, right>(sums, kPanel * int64_t(sizeof(float)), kRows * kPanel, kColumns);
}

// A segment of a strip, and the panels [first, last) of channels
struct Job {
  const AmxProduct& a;
  const Segment& segment;
  const Source& source;
  const char* weights;  // of the group's first panel
  const float* bias;
  uint16_t* target;  // of the group's first channel
  int first, last;
};

CONVLAB_AMX void run_segment(const Job& job, const Strip& s, const AmxBench& bench) {
  const AmxProduct& a = job.a;
  const Product& p = a.product;
  const Segment& g = job.segment;
  const Phase &rows = a.rows[g.rows], &columns = a.columns[g.columns];
  const Lines lines = lines_of(rows, s.row0, s.row1);
  if (lines.begin >= lines.end || !columns.count) return;
  const Cut c = cut(a, g, job.source, s, lines, bench.tiles);
  int64_t* run = bench.runs;
  for (int r = 0; r < rows.tap_count; r++)
    for (int j = 0; j < g.runs; j++)
      *run++ = rows.offsets[r] * job.source.row + columns.offsets[j * g.run_taps] * job.source.pixel;
  const int64_t step = columns.from_step * job.source.pixel, run_count = run - bench.runs;
  const Landing landing{a, s, lines, rows, columns, job.source.row * rows.from_step / step, job.source.image / step};
  shape(Shapes(c.tile_rows, c.tile_rows, g.depth));
  const bool near_weights = (job.last - job.first) * a.panel_weights <= kNearWeights;
  const int64_t at_once = near_weights ? 2 : c.count;
  for (int64_t t0 = 0; t0 < c.count; t0 += at_once)
    for (int i = job.first; i < job.last; i++) {
      const int lanes = p.width - i * kPanel < kPanel ? p.width - i * kPanel : kPanel;
      const Finishing finishing{job.bias + i * kPanel, a.ending, a.ending.activation != Activation::none};
      uint16_t* const target = job.target + int64_t(i) * kPanel * p.target.c;
      const bool right = lanes > kColumns;
      const auto f = right ? &products<true, true> : &products<true, false>,
                 f_of_one = right ? &products<false, true> : &products<false, false>;
      for (int64_t t = t0; t < t0 + at_once && t < c.count; t += 2) {
        const PixelTile* const tiles = bench.tiles + t;
        const int count = t + 1 < c.count ? 2 : 1;
        const bool more = t + 3 < c.count;
        AskedFor ahead{};
        if (near_weights && more && a.in_place) {
          const int part = i - job.first, parts = job.last - job.first;
          ahead = {tiles[2].source - tiles[0].source, part * c.tile_rows / parts, (part + 1) * c.tile_rows / parts};
        }
        const char *const upper = job.source.data + tiles[0].source, *const lower =
                                                                         job.source.data + tiles[count - 1].source;
        (count == 2 ? f : f_of_one)(g, bench.runs, run_count, upper, lower, step,
                                    job.weights + i * a.panel_weights + g.weights, bench.sums, ahead);
        for (int j = 0; j < count; j++)
          landing.each(tiles[j], c.tile_rows, target,
                       [&](int first, int run, uint16_t* to) __attribute__((always_inline)) {
                         const float* const sums = bench.sums + (j * kRows + first) * kPanel;
                         if (a.channels_last())
                           to_pixels(finishing, sums, run, lanes, to, columns.at_step * p.target.w);
                         else to_planes(finishing, sums, run, lanes, to, p.target.c, columns.at_step * p.target.w);
                       });
      }
    }
}

CONVLAB_AMX void run(const AmxProduct& a, const uint16_t* source, const char* weights, const float* bias,
                     uint16_t* target, int64_t begin, int64_t end, char* scratch) {
  Carver carver{scratch};
  const AmxBench bench(carver, a);
  const Product& p = a.product;
  const int parts = a.parts(), panels = a.panels();
  int64_t prepared = -1;
  Source looked_at{};
  for (int64_t piece = begin; piece < end; piece++) {
    const int64_t index = piece / parts;
    const int group = int(index % p.groups), part = int(piece % parts), first = part * a.panels_per_piece;
    const Strip s = strip_of(p, index / p.groups);
    if (prepared != index) looked_at = look(a, source, s, group, bench.source), prepared = index;
    for (const Segment* g = a.segments; g < a.segments + a.segment_count; g++)
      run_segment({.a = a,
                   .segment = *g,
                   .source = looked_at,
                   .weights = weights + int64_t(group) * panels * a.panel_weights,
                   .bias = bias + int64_t(group) * panels * kPanel,
                   .target = target + int64_t(group) * p.width * p.target.c,
                   .first = first,
                   .last = first + a.panels_per_piece < panels ? first + a.panels_per_piece : panels},
                  s, bench);
  }
  _tile_release();
}

void pack(const AmxProduct& a, const bfloat16* w, char* packed, int64_t begin, int64_t end, float* scratch) {
  const int vectors = a.panels() * 2, real = (a.product.width + kColumns - 1) / kColumns;
  const int depth = a.product.depth;
  for (int64_t i = begin; i < end; i++) {
    const int64_t group = i / vectors, vector = i % vectors;
    const bool empty = vector >= real;
    if (!empty) pack_weights<bfloat16>(a.filters, w, scratch, group * real + vector, group * real + vector + 1);
    for (const Segment* g = a.segments; g < a.segments + a.segment_count; g++) {
      const Phase &rows = a.rows[g->rows], &columns = a.columns[g->columns];
      const int64_t tile = int64_t(g->depth / 2) * kRowBytes;
      char* to = packed + (group * a.panels() + vector / 2) * a.panel_weights + g->weights + vector % 2 * tile;
      int row_of_tile = 0;
      for (int r = 0; r < rows.tap_count; r++)
        for (int s = 0; s < g->runs * g->run_taps; s++) {
          const float* const from =
              scratch + (int64_t(rows.taps[r]) * a.filters.S + columns.taps[s]) * depth * kColumns;
          for (int c = 0; c < a.pixel_channels; c += 2, to += kRowBytes) {
            FloatBits both{};
            if (!empty && c < depth) both = (FloatBits)load<float>(from + c * kColumns) >> 16;
            if (!empty && c + 1 < depth) both |= (FloatBits)load<float>(from + (c + 1) * kColumns) & 0xffff0000u;
            store<uint32_t>(reinterpret_cast<uint32_t*>(to), both);
            if (++row_of_tile == g->depth / 2) row_of_tile = 0, to += tile;  // over the other vector's
          }
        }
    }
  }
}

}  // namespace convlab::CONVLAB_ISA::amx

#else

namespace convlab::CONVLAB_ISA::amx {

void run(const convlab::amx::AmxProduct&, const uint16_t*, const char*, const float*, uint16_t*, int64_t, int64_t,
         char*) {}
void pack(const convlab::amx::AmxProduct&, const bfloat16*, char*, int64_t, int64_t, float*) {}

}  // namespace convlab::CONVLAB_ISA::amx

#endif

CONVLAB_DEFINE_FOR(amx, amx::run, amx::run, amx::run, amx::run)
CONVLAB_DEFINE_FOR(amx_pack, amx::pack, amx::pack, amx::pack, amx::pack)
