// What both kernels of forward and dgrad walk through: strips, whose source they look at in their own way, segments, and
// pairs of tiles times panels of 32 channels, which they multiply in their own way.
#pragma once
#include "cpu/conv2d/amx/finishing.h"
#include "cpu/conv2d/amx/tiles.h"

#if defined(CONVLAB_HAS_AMX) && defined(__AVX512F__)

namespace convlab::CONVLAB_ISA::amx {

// A segment of a strip
struct Job {
  const AmxProduct& a;
  const Segment& segment;
  const Source& source;
  const Phase& columns;
  const AmxBench& bench;
  Landing landing;
  Finishing finishing;
  Cut cut;
  int64_t run_count;
  bool near_weights;  // all panels meet two tiles before the next two
};

// Two tiles of positions, or one, times a panel of channels
template <class T> struct Meeting {
  const PixelTile* tiles;
  int count;
  bool more;  // and two tiles follow
  int lanes;  // channels
  const char* weights;
  const float* bias;
  T* target;  // of the panel's first channel
  int panel, panels;  // of the piece

  bool joined() const { return tiles[0].joins; }  // their positions are neighbours
  // f(tile, first, count, to) for what lies in a row of the target
  template <class F> CONVLAB_INLINE void each_run(const Job& job, const F& f) const {
    for (int j = 0; j < (joined() ? 1 : count); j++)
      job.landing.each(tiles[j], joined() ? 2 * job.cut.size : job.cut.size, target,
                       [&](int first, int run, T* to) __attribute__((always_inline)) { f(j, first, run, to); });
  }
};

// The panels [first, last) of channels; weights, bias, target: of the group
template <class Way, class T>
CONVLAB_AMX void run_segment(const AmxProduct& a, const Segment& g, const Source& source, const Strip& s,
                             const AmxBench& bench, const char* weights, const float* bias, T* target, int first,
                             int last) {
  const Product& p = a.product;
  const Lines lines = lines_of(a.rows[g.rows], s.row0, s.row1);
  if (lines.begin >= lines.end || !a.columns[g.columns].count) return;
  const Job job{.a = a,
                .segment = g,
                .source = source,
                .columns = a.columns[g.columns],
                .bench = bench,
                .landing = Landing(a, g, source, s, lines),
                .finishing = Finishing(a.ending),
                .cut = cut(a, g, source, s, lines, bench.tiles),
                .run_count = runs_of(a, g, source, bench.runs),
                .near_weights = (last - first) * a.panel_weights <= kNearWeights};
  shape(Way::shapes(job));
  const int64_t count = job.cut.count, at_once = job.near_weights ? 2 : count;
  for (int64_t t0 = 0; t0 < count; t0 += at_once)
    for (int i = first; i < last; i++)
      for (int64_t t = t0; t < t0 + at_once && t < count; t += 2)
        Way::multiply(job, Meeting<T>{.tiles = bench.tiles + t,
                                      .count = t + 1 < count ? 2 : 1,
                                      .more = t + 3 < count,
                                      .lanes = least_of(p.width - i * kPanel, kPanel),
                                      .weights = weights + i * a.panel_weights + g.weights,
                                      .bias = bias + i * kPanel,
                                      .target = target + int64_t(i) * kPanel * p.target.c,
                                      .panel = i - first,
                                      .panels = last - first});
}

// The pieces [begin, end): strips x groups x parts of the channels
template <class Way, class T>
CONVLAB_AMX void run_pieces(const AmxProduct& a, const T* source, const char* weights, const float* bias, T* target,
                            int64_t begin, int64_t end, char* scratch) {
  Carver carver{scratch};
  const AmxBench bench(carver, a);
  const Product& p = a.product;
  const int parts = a.parts(), panels = a.panels();
  int64_t prepared = -1;
  Source looked_at{};
  for (int64_t piece = begin; piece < end; piece++) {
    const int64_t index = piece / parts;
    const int group = int(index % p.groups), first = int(piece % parts) * a.panels_per_piece,
              last = least_of(first + a.panels_per_piece, panels);
    const Strip s = strip_of(p, index / p.groups);
    if (prepared != index)
      looked_at = Way::look(a, source + int64_t(group) * p.depth * p.source.c, s, bench.source), prepared = index;
    for (const Segment* g = a.segments; g < a.segments + a.segment_count; g++)
      run_segment<Way>(a, *g, looked_at, s, bench, weights + int64_t(group) * panels * a.panel_weights,
                       bias + int64_t(group) * panels * kPanel, target + int64_t(group) * p.width * p.target.c, first,
                       last);
  }
  _tile_release();
}

}  // namespace convlab::CONVLAB_ISA::amx

#else

namespace convlab::CONVLAB_ISA::amx {

template <class Way, class T>
void run_pieces(const convlab::amx::AmxProduct&, const T*, const char*, const float*, T*, int64_t, int64_t, char*) {}

}  // namespace convlab::CONVLAB_ISA::amx

#endif
