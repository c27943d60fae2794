// A strip's pixels, sorted by the taps that reach them, and the terms of each class: what tiles walk over.
#pragma once
#include "cpu/conv2d/register_tiled/source_of_strip.h"

namespace convlab::CONVLAB_ISA::register_tiled {

constexpr int kFewChannels = 16;  // of the source: rows of taps are joined, where they can be

// Where the strip's target goes, from its first row on: into memory itself, or a panel [pixels, vectors of a tile]
struct Into {
  int64_t n, h, w;  // strides
};

// The terms [first, last) of a class, those of a row's `across` taps in one, where their few channels lie one behind
// another at one step, in the source as in the weights: loops over few channels would cost as much as their
// multiply-adds. Their end.
inline Term* join_rows(Term* first, Term* last, int across, int step, const Channels& channels) {
  const int depth = last == first ? 0 : first->count;
  if (!depth || across < 2 || depth > kFewChannels || across * depth > channels.products_in_chunk) return last;
  for (int i = 1; i < across; i++)
    if (first[i].source - first[i - 1].source != depth * step || first[i].weights - first[i - 1].weights != depth)
      return last;
  Term* to = first;
  for (const Term* from = first; from != last; from += across) *to++ = {from->source, from->weights, depth * across};
  return to;
}

// Taps with larger numbers read elements behind those of smaller ones, as in forward, not before, as in dgrad
inline bool ascends(const AxisView& columns) {
  for (int i = 0; i < columns.count; i++)
    if (const TapClassView& c = columns.classes[i]; c.tap_count > 1) return c.offsets[1] > c.offsets[0];
  return true;
}

// The terms of one row of taps, of so many channels, where pixels slide: each of two taps, the last of two or three. Only
// the class of all taps has several places in a row, so there are two at least. Their end.
inline Term* sliding_terms(const TapClassView& across, bool ascending, int source, int weights, int64_t channel,
                           int depth, Term* term) {
  const int count = across.tap_count;
  for (int c = 0; c < depth; c++)
    for (int i = 0, taken; i < count; i += taken) {
      const int tap = ascending ? i : count - 1 - i, left = count - i;
      taken = left == 3 ? 3 : 2;
      *term++ = {int(source + across.offsets[tap] + c * channel), (weights + across.taps[tap]) * depth + c, taken};
    }
  return term;
}

// The terms and pixels of the classes, one after another, as offsets from where the strip's source (`lens`) and target
// begin; how many segments
template <class A>
int sort_pixels(const TiledProduct& t, const Strip& s, const Lens<A>& lens, const Into& into, const Channels& channels,
                Segment* segments, Term* terms, Pixel* pixels) {
  const Product& p = t.product;
  Segment* segment = segments;
  Term* term = terms;
  Pixel* pixel = pixels;
  for (int rc = 0; rc < p.rows.count; rc++)
    for (int cc = 0; cc < p.columns.count; cc++) {
      const TapClassView &vertical = p.rows.classes[rc], &horizontal = p.columns.classes[cc];
      Pixel* const first_pixel = pixel;
      for (int n = s.n0; n < s.n1; n++)
        for (int i = 0; i < vertical.place_count; i++) {
          const Place& row = vertical.places[i];
          if (row.at < s.row0 || row.at >= s.row1) continue;
          const int64_t from = (n - s.n0) * lens.n + (row.base - lens.row0) * lens.h,
                        to = (n - s.n0) * into.n + (row.at - s.row0) * into.h;
          for (int j = 0; j < horizontal.place_count; j++)
            *pixel++ = {from + horizontal.places[j].base * lens.w, to + horizontal.places[j].at * into.w};
        }
      if (pixel == first_pixel) continue;
      const int across = horizontal.place_count, first_base = horizontal.places[0].base;
      const bool side_by_side =
          lens.w == 1 && across > 1 && horizontal.places[across - 1].base - first_base == across - 1;
      const Reads reads = !side_by_side ? Reads::apart : t.slides ? Reads::sliding : Reads::side_by_side;
      Term* const first_term = term;
      for (int i = 0; i < vertical.tap_count; i++) {
        const int row = int(vertical.offsets[i] * lens.h), row_weights = vertical.taps[i] * p.columns.kernel;
        if (reads == Reads::sliding)
          term = sliding_terms(horizontal, ascends(p.columns), row, row_weights, lens.c, p.depth, term);
        for (int j = 0; j < horizontal.tap_count && reads != Reads::sliding; j++)
          for (int c = 0; c < p.depth; c += channels.depth_at_once)
            *term++ = {int(row + horizontal.offsets[j] * lens.w + c * lens.c),
                       (row_weights + horizontal.taps[j]) * p.depth + c,
                       p.depth - c < channels.depth_at_once ? p.depth - c : channels.depth_at_once};
      }
      if (!side_by_side) term = join_rows(first_term, term, horizontal.tap_count, int(lens.c), channels);
      int longest = 1;
      for (const Term* one = first_term; one != term; one++) longest = one->count > longest ? one->count : longest;
      const int64_t count = pixel - first_pixel;
      *segment++ = {first_term - terms,
                    term - first_term,
                    int64_t(vertical.tap_count) * horizontal.tap_count * p.depth,
                    channels.products_in_chunk / longest,
                    first_pixel - pixels,
                    count,
                    side_by_side ? across : count,
                    reads};
    }
  return int(segment - segments);
}

}  // namespace convlab::CONVLAB_ISA::register_tiled
