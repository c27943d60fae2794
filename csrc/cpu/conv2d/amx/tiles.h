// Which positions of a strip the rows or columns of tile registers are, where their source lies, and where their sums go.
#pragma once
#include "cpu/conv2d/amx/tile_registers.h"
#include "cpu/conv2d/strips.h"

#if defined(CONVLAB_HAS_AMX) && defined(__AVX512F__)

namespace convlab::CONVLAB_ISA::amx {

// Positions [begin, end) of a phase whose targets lie in [row0, row1)
struct Lines {
  int begin, end;
};
CONVLAB_INLINE int rounded_up(int a, int b) { return a <= 0 ? 0 : (a + b - 1) / b; }
CONVLAB_INLINE Lines lines_of(const Phase& p, int row0, int row1) {
  const int begin = rounded_up(row0 - p.at, p.at_step), end = rounded_up(row1 - p.at, p.at_step);
  return {begin < p.count ? begin : p.count, end < p.count ? end : p.count};
}

// The first and the last row of the source that taps reach from targets in the strip; none: the last is before the first
inline void rows_read(const AmxProduct& a, const Strip& s, int& first, int& last) {
  first = 0, last = -1;
  for (int i = 0; i < a.row_phases; i++) {
    const Phase& rows = a.rows[i];
    const Lines lines = lines_of(rows, s.row0, s.row1);
    if (!rows.tap_count || lines.begin >= lines.end) continue;
    const int from = rows.from + lines.begin * rows.from_step,
              end = rows.from + (lines.end - 1) * rows.from_step + rows.offsets[rows.tap_count - 1];
    const bool none = last < first;
    first = none || from < first ? from : first, last = none || last < end ? end : last;
  }
}

// A strip's source: rows of images from `row0` on, in a panel or where it lies. A panel of planes has them taken apart by
// the stride, so that neighbouring positions of the target read neighbours.
struct Source {
  const char* data;
  int64_t image, row, pixel;  // bytes, from one to the next of those that are not taken apart
  int row0, column0;
  int rows_apart = 1, columns_apart = 1;
  int64_t row_phase = 0, column_phase = 0;  // bytes from phase to phase
  int64_t pair = 0;  // bytes from a pair of elements to the next

  // From a position of the target to the next one, below and beside it
  CONVLAB_INLINE int64_t below(const Phase& rows) const { return row * (rows.from_step / rows_apart); }
  CONVLAB_INLINE int64_t beside(const Phase& columns) const { return pixel * (columns.from_step / columns_apart); }
  // Of the first position of all, from `data`
  CONVLAB_INLINE int64_t first(const Phase& rows, const Phase& columns, const Lines& lines) const {
    return (int64_t(rows.from) + lines.begin * rows.from_step - row0) / rows_apart * row +
           (columns.from - column0) / columns_apart * pixel;
  }
  // From there to what a tap reads
  CONVLAB_INLINE int64_t tap(int below, int beside) const {
    return below % rows_apart * row_phase + below / rows_apart * row + beside % columns_apart * column_phase +
           beside / columns_apart * pixel;
  }
};

// Bytes from a position to what each run of taps reads -> how many runs there are
inline int64_t runs_of(const AmxProduct& a, const Segment& g, const Source& source, int64_t* runs) {
  const Phase &rows = a.rows[g.rows], &columns = a.columns[g.columns];
  int64_t count = 0;
  for (int r = 0; r < rows.tap_count; r++)
    for (int j = 0; j < g.runs; j++)
      runs[count++] = source.tap(rows.offsets[r], a.taps_in_panel ? 0 : columns.offsets[j * g.run_taps]);
  return count;
}

// How a segment's positions become tiles: of a row of the target each, or, where nothing but a gap is between
// rows, of an image or of all images, gaps included
struct Cut {
  int size;  // positions of a tile
  int64_t count;  // tiles
};

// Of the tiles of a segment; cost: what products of so many rows take, measured
CONVLAB_INLINE double cost(int64_t tiles, int rows) { return double(tiles) * (13 + 0.28 * rows); }

inline Cut cut(const AmxProduct& a, const Segment& g, const Source& source, const Strip& s, const Lines& lines,
               PixelTile* tiles) {
  const Phase &rows = a.rows[g.rows], &columns = a.columns[g.columns];
  const int images = s.n1 - s.n0, count = lines.end - lines.begin, width = columns.count;
  const int64_t step = source.beside(columns), pitch = source.below(rows);
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
    if (cuts[w].count <= cuts[0].count && cost(cuts[w].count, cuts[w].size) < cost(cuts[best].count, cuts[best].size))
      best = w;
  }
  const Cut c = cuts[best];
  const int64_t in_run = c.count / ways[best].runs, first = source.first(rows, columns, lines);
  for (int64_t run = 0; run < ways[best].runs; run++) {
    const int n0 = int(best == 0 ? run / count : best == 1 ? run : 0), row0 = int(best == 0 ? run % count : 0);
    for (int64_t i = 0; i < in_run; i++) {
      const int64_t last = ways[best].length - c.size, at = i * c.size < last ? i * c.size : last;
      const int64_t image = best == 2 ? at / in_image : 0, line = best ? (at - image * in_image) / in_pitch : 0;
      *tiles++ = {first + n0 * source.image + row0 * pitch + at * step, n0 + int(image), row0 + int(line),
                  int(at - image * in_image - line * in_pitch), at + 2 * c.size <= ways[best].length};
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

  Landing(const AmxProduct& a, const Segment& g, const Source& source, const Strip& strip, const Lines& lines)
      : a(a),
        strip(strip),
        lines(lines),
        rows(a.rows[g.rows]),
        columns(a.columns[g.columns]),
        in_pitch(source.below(rows) / source.beside(columns)),
        in_image(source.image / source.beside(columns)) {}

  // f(first, count, to) for the runs of a tile's positions that lie in a row of the target, `to` where the first one's
  // element of channel 0 goes
  template <class T, class F> CONVLAB_INLINE void each(const PixelTile& tile, int count, T* target, const F& f) const {
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

}  // namespace convlab::CONVLAB_ISA::amx

#endif
