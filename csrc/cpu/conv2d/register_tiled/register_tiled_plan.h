// `register_tiled` up to its kernels: how a problem is cut into strips, panels and slices, and when it is best.
#pragma once
#include <algorithm>

#include "cpu/conv2d/direct/direct_plan.h"
#include "cpu/conv2d/register_tiled/patches.h"
#include "cpu/conv2d/register_tiled/planes_plan.h"
#include "cpu/conv2d/register_tiled/register_tiled.h"
#include "cpu/conv2d/tap_tables.h"

namespace convlab::register_tiled {

// A strip of the source should leave room in an L2 of 1 MB for the weights of a tile and the target.
constexpr int64_t kStripBytes = 256 << 10;
// In wgrad of 1 x 1 filters strips need no rows beside their own: planes, which are copied, lie in larger ones; of what is
// channels_last a tile of channels of x finds its lines in the L1, beside so many bytes of dy.
constexpr int64_t kPlanesBytes = 512 << 10, kGradBytes = 16 << 10;
constexpr int64_t kTargetBytes = 128 << 10, kFewWeights = 64 << 10;  // of a strip, if so few bytes of weights meet it
// Of the target: each has 16 bytes in the table of addresses, and up to 256 in its panel.
constexpr int64_t kStripPixels = 1024;
// In wgrad each is a term of sums, which torch cuts, too: 784 in one had twice the error of its own
constexpr int64_t kSumPixels = 512;
constexpr int64_t kFewPixels = 128;  // of the target: a strip of less takes several images
constexpr int kPlanes = 16;  // channels of the source: fewer planes are faster read where they lie than packed
constexpr int64_t kPiecesOfWideTiles = 8;  // fewer are narrow: a thread that has one more would keep the others waiting
constexpr int64_t kSliceBytes = 4 << 20;  // of wgrad's partial sums, all slices together
constexpr int64_t kSlicePixels = 512;  // so many at least, unless that makes too few pieces: sums take time to add up
constexpr int64_t kSumsBytes = 4 << 20;  // of a thread's, where there is one slice: so many meet a copy of x together
// wgrad copies x to tiles of channels where channels lie innermost already if so many tiles of k read it
constexpr int kManyPanels = 3;
constexpr int kFewSums = 64;  // channels of x times taps: so few read dy where it lies, and more a copy

// When "auto" takes it; measured on two cores of AVX2, the first two numbers on two of AVX-512 as well
constexpr int kNarrow = 12;  // target channels a group, or a vector's lanes: fewer waste too many of them
// Source channels a group: fewer make loops too short to pay for a tile, and for transposing its target where that lies
// NCHW
constexpr int kShallow = 4;
// Of one vector of channels that slides: as many terms, or with channels_last as few channels of the source, as make it
// faster even where some lanes are empty
constexpr int kLeastSliding = 16, kFewSliding = 6;
constexpr int kLeastSlides = 3;  // from pixel to pixel of a row
constexpr int kDeep = 16;  // source channels a group: so many pay for them also where a tile is narrow
// wgrad of 1 x 1 filters does not turn planes of so many elements where there are so few channels on one side, and weights
constexpr int kLargePlane = 256, kFewTurned = 24, kWeightsOfFew = 3072;
// nor, with AVX-512, of so many elements with so few weights
constexpr int kLargestPlane = 2048, kWeightsOfLargest = 4608;
// Channels of the source of 1 x 1 filters that `direct` reads as planes: to few channels, and of planes of many pages; to more
// channels kFewTurned, and with AVX2 of large planes
constexpr int kFewRead = 72, kFewPages = 32, kFewOfLarge = 32;
constexpr int64_t kManyPages = 8192;  // elements of a plane
// With AVX2 it reads any number of them for up to kFewTurned channels of the target, or kFewMade where a plane has
// kSmallPlane to kMiddlePlane elements, in rows of so many vectors at least
constexpr int kFewMade = 48, kSmallPlane = 192, kMiddlePlane = 1024, kVectorsOfRow = 3;
// Of vectors of eight, in full_vector_pays: rows of so many are long, and whole ones of so few short, in wgrad
constexpr int kFullVector = 8, kLongRowOfFull = 5, kShortRowOfFull = 2;
constexpr int kLongRow = 192;  // vectors of an image of one row: with so many, `direct` is faster in wgrad,
constexpr int kManySums = 8192;  // unless a group has so many weights, where it is slower (1.1 to 1.6 times)
constexpr int kFewTerms = 96;  // of a matrix product: 1.0 to 4 times as fast here, for eight images
// Channels times taps: so many make loops long enough, in wgrad, and where `direct` has rows of whole vectors
constexpr int kManyTerms = 48, kManyTermsInWgrad = 72, kManyTermsOfWholeRows = 160;

// Offsets within an image have 32 bits
inline bool can(const Problem& p) {
  const Conv2d& g = p.g;
  return int64_t(g.C) * g.H * g.W <= INT32_MAX && int64_t(g.K) * g.P * g.Q <= INT32_MAX;
}
inline std::string why_not(const Problem&) { return "takes images of up to 2^31 - 1 elements"; }

// Whether planes that are read where they lie are rows of whole vectors, or one row with no more than a rest
inline bool fills_vectors(const Problem& p) {
  const Conv2d g = with_rows_of_vectors(p, true).g;
  const int lanes = instruction_set().lanes(p.dtype);
  return g.Q >= kVectorsOfRow * lanes && (g.Q % lanes == 0 || g.P == 1);
}

// Of 1 x 1 filters in NCHW `direct` reads and writes planes where they lie, where they are whole vectors. Copying them,
// or turning them, as register_tiled does, takes longer than it saves where there are few channels: 1.0 to 1.4 times.
inline bool direct_takes_planes(const Problem& p, int width, int depth) {
  const int64_t plane = int64_t(p.g.H) * p.g.W, weights = int64_t(width) * depth;
  const bool whole = plane % 16 == 0, large_vectors = instruction_set().vector_bytes > 32;
  if (p.pass == Pass::wgrad) {  // 1.05 to 2 times as fast
    if (!whole || !is_sum_type(p.dtype)) return false;
    if (large_vectors && plane >= kLargestPlane && weights <= kWeightsOfLargest) return true;
    return plane >= kLargePlane && std::min(width, depth) <= kFewTurned && weights <= kWeightsOfFew;
  }
  if (!takes_planes(p)) return large_vectors && whole;
  // A copy for few channels takes as long as they do: 1.1 to 1.9 times as fast without
  const int few = plane >= kSmallPlane && plane <= kMiddlePlane ? kFewMade : kFewTurned;
  if (!large_vectors && plane < kManyPages && width <= few && fills_vectors(p)) return true;
  if (width <= kFewTurned) return whole && depth <= (plane >= kManyPages ? kFewPages : kFewRead);
  return whole && depth <= (plane >= kLargestPlane && !large_vectors ? kFewOfLarge : kFewTurned);
}

// One vector of channels slides where enough neighbours in a row read all taps; offsets within its panel have 32 bits
inline bool slides(const Problem& p, int width) {
  const Conv2d& g = p.g;
  const bool forward = p.pass == Pass::forward;
  const int rows = forward ? g.H : g.P, columns = forward ? g.W : g.Q, depth = forward ? g.Cg() : g.Kg();
  return slides(instruction_set()) && p.pass != Pass::wgrad && width <= instruction_set().lanes(p.dtype) && g.S > 1 &&
         g.stride_w == 1 && g.dilation_w == 1 && (g.R > 1 || g.stride_h == 1) && columns >= g.S + kLeastSlides &&
         depth * panel_plane(int64_t(rows) * columns) <= INT32_MAX;
}

// Eight to eleven channels of the target, with vectors of eight. Tiles of one full vector pay at any stride (1.1 to 3.5 times
// as fast as `direct`); others along short rows, where `direct` leaves lanes of a row's last vector empty (1.1 to 1.7 times).
inline bool full_vector_pays(const Problem& p, int width) {
  const Conv2d& g = p.g;
  const int columns = p.pass == Pass::dgrad ? g.W : g.Q;
  if (width == kFullVector && (g.stride_h > 1 || g.stride_w > 1)) return true;
  if (columns % kFullVector == 0) return p.pass == Pass::wgrad && columns <= kShortRowOfFull * kFullVector;
  return columns < kLongRowOfFull * kFullVector;
}

inline bool best(const Problem& p) {
  const Conv2d& g = p.g;
  const bool wgrad = p.pass == Pass::wgrad;
  const int width = p.pass == Pass::dgrad ? g.Cg() : g.Kg(), depth = p.pass == Pass::dgrad ? g.Kg() : g.Cg(),
            full = std::min(kNarrow, instruction_set().lanes(p.dtype));
  const int64_t terms = int64_t(depth) * g.R * g.S;
  // `direct` adds up the lanes of every output, and vectors of few terms are most of its work
  if (direct::is_matrix_product(p)) return p.pass == Pass::forward && terms <= kFewTerms;
  const int lanes = instruction_set().lanes(p.dtype);
  const bool large_vectors = instruction_set().vector_bytes > 32, nearly_full = 4 * width > 3 * lanes;
  if (p.channels_last && slides(p, width) && depth <= kFewSliding && 8 * width >= 5 * lanes) return true;
  if (p.channels_last) {  // `direct` takes rows apart into planes, in wgrad those of dy as well, and group by group
    if (g.R * g.S == 1 && depth > kShallow) return true;
    return wgrad ? depth > 1 && width >= (g.groups > 1 ? full / 2 : full) : width >= full;
  }
  if (g.H == 1 && g.P == 1) {  // one dimension: `direct` is 1.1 to 1.3 times as fast
    if (wgrad && g.stride_w == 1 && g.Q >= kLongRow * lanes && width * terms < kManySums) return false;
    if (p.pass == Pass::forward && (depth <= kShallow || (slides(p, width) && !nearly_full))) return false;
  }
  if (slides(p, width) && g.H > 1 && terms >= kLeastSliding && nearly_full) return true;
  if (is_pointwise(g) && direct_takes_planes(p, width, depth)) return false;
  if (takes_planes(p)) return true;
  // `direct` takes rows apart element by element, which is most of its work; without that, 1.1 to 4 times as fast
  const bool several = wgrad ? depth > 1 : width > 1 || depth > 1;
  if (g.stride_w > 2 && several && width >= (large_vectors || p.pass == Pass::dgrad ? full : 1)) return true;
  if (width < kNarrow)
    return width >= full && (depth > kDeep || (lanes == kFullVector && depth > kShallow && full_vector_pays(p, width)));
  if (depth > kShallow) return true;
  if (wgrad) return depth > 1 && terms > (large_vectors ? kManyTermsOfWholeRows : kManyTermsInWgrad);
  // With shorter vectors than AVX-512's, `direct` is slower where a tenth of the lanes is empty
  const bool whole = large_vectors || (p.pass == Pass::forward && (round_up(g.Q, lanes) - g.Q) * 10 <= g.Q);
  return terms >= (whole ? kManyTermsOfWholeRows : kManyTerms);
}

// Cuts the target's rows into strips; element: bytes of a sum. Where weights are few, every tile of channels soon comes
// back to a pixel: it should still be in the L2.
inline void cut(Product& p, int64_t element, bool writes) {
  const int64_t image = int64_t(p.rows.source) * p.columns.source * p.depth * element;
  const int64_t pixels = std::max<int64_t>(1, int64_t(p.rows.target) * p.columns.target);
  const int64_t weights = int64_t(p.width) * p.depth * p.rows.kernel * p.columns.kernel * element,
                made = writes && weights <= kFewWeights ? pixels * p.width * element : 0;
  const bool pointwise = !writes && p.rows.kernel * p.columns.kernel == 1, last = p.source.c == 1;
  const InstructionSet& set = instruction_set();
  const int64_t most = writes              ? kStripPixels
                       : pointwise && last ? kGradBytes / (set.tile_vectors * set.vector_bytes)
                                           : kSumPixels,
                room = pointwise && !last ? kPlanesBytes : kStripBytes;
  const int64_t fit =
      std::min({room / std::max<int64_t>(1, image), most / pixels, kTargetBytes / std::max<int64_t>(1, made)});
  p.images_per_strip = int(std::clamp<int64_t>(fit, 1, std::max<int64_t>(1, p.images / kPiecesWanted)));
  if (pixels * p.images_per_strip < kFewPixels)
    p.images_per_strip = int(std::clamp<int64_t>(std::min(fit, kFewPixels / pixels), 1, std::max(1, p.images)));
  p.rows_per_strip = p.rows.target;
  if (fit >= 1) return;
  // the rows of the source that a strip needs beside its own: about a kernel's
  const auto parts = [](int64_t all, int64_t most) { return (all + most - 1) / most; };
  const int64_t strips = std::max({parts(image, room), parts(pixels, most), parts(made, kTargetBytes)});
  p.rows_per_strip = in_pairs((p.rows.target + strips - 1) / strips);
}

// What kernels take, and all it points to
struct Tables {
  Strides x, y;
  TapTables taps;
  TiledProduct t;
  Channels channels;
  int64_t weight_bytes, bias_bytes;  // shared

  // dgrad writes all of x; the others need not look at what no filter meets
  static Conv2d shape(const Problem& p, Strides& x) {
    Conv2d g = p.g;
    if (p.pass != Pass::dgrad) leave_out_skipped(g, x);
    return g;
  }

  explicit Tables(const Problem& p) : Tables(view(p)) {}

  explicit Tables(const View& v) : Tables(v.p, v.x, v.patches) {}

  Tables(const Problem& p, const Strides& x_of_view, const Patches& patches)
      : x(x_of_view),
        y(y_strides(p)),
        taps(shape(p, x), p.pass, p.dtype, x, y, true),
        t{.product = taps.product,
          .filters = filters_of(p),
          .vertical = taps.vertical,
          .horizontal = taps.horizontal,
          .wide = p.pass != Pass::wgrad,
          .patches = patches},
        channels(t, instruction_set(), instruction_set().lanes(p.dtype)) {
    Product& product = t.product;
    cut(product, sum_bytes(p.dtype), p.pass != Pass::wgrad);
    if (t.wide && product.strips() * product.groups * channels.panels < kPiecesOfWideTiles) {
      t.wide = false;
      channels = Channels(t, instruction_set(), channels.lanes);
    }
    const int64_t groups = product.groups, panels = channels.panels;
    weight_bytes = groups * channels.vectors * weights_of_vector(t, channels) * sum_bytes(p.dtype);
    bias_bytes = groups * channels.vectors * instruction_set().vector_bytes;
    int64_t pieces = product.strips();
    if (p.pass == Pass::wgrad) {
      const int64_t most = std::max<int64_t>(1, std::min({kPiecesWanted / groups, pieces, kSliceBytes / weight_bytes})),
                    pixels = int64_t(product.images) * product.rows.target * product.columns.target;
      pieces = std::min(most, std::max(pixels / kSlicePixels, kPiecesWanted / (groups * panels)));
      pieces = std::max<int64_t>(1, pieces);
      for (int64_t even = pieces; even > pieces / 2; even--)  // slices of equally many strips, if there are such
        if (product.strips() % even == 0) {
          pieces = even;
          break;
        }
      t.slices = int(pieces);
      weight_bytes *= t.slices == 1 ? 0 : t.slices, bias_bytes = 0;
    } else {
      t.in_planes = product.depth <= kPlanes && product.same_type && product.source.w == 1;
      t.slides = slides(p, product.width);
      t.packs_weights = pieces == 1;  // and go no further than that thread's cache
      if (t.packs_weights) weight_bytes = 0;
    }
    const int64_t parts = std::clamp<int64_t>(kPiecesWanted / std::max<int64_t>(1, pieces * groups), 1, panels);
    t.panels_per_piece = int((panels + parts - 1) / parts);
    if (p.pass != Pass::wgrad) return;
    t.source_in_tiles =
        product.depth >= kManyChannels && (!source_in_place(t) || t.patches.any() || channels.panels >= kManyPanels);
    const bool one_strip = t.slices == 1 && product.strips() == 1;
    if (t.slices == 1 && (t.source_in_tiles || !source_in_place(t))) {
      const int64_t sums =
          t.panels_per_piece * channels.tile_vectors * weights_of_vector(t, channels) * sum_bytes(p.dtype);
      t.parts_at_once =
          int(one_strip ? channels.parts(t)
                        : std::clamp<int64_t>(kSumsBytes / std::max<int64_t>(1, sums), 1, channels.parts(t)));
    }
    t.panels_kept = one_strip ? 1 : t.parts_at_once * t.panels_per_piece;
    t.grad_in_place = product.same_type && product.target.c == 1 && product.width % channels.lanes == 0 &&
                      (product.depth < kManyChannels || product.depth * t.filters.R * t.filters.S <= kFewSums);
  }
  int64_t pieces(Pass pass) const {
    return (pass == Pass::wgrad ? t.slices : t.product.strips()) * t.product.groups * channels.parts(t);
  }
};

inline CpuPlan plan(const Problem& problem) {
  if (takes_planes(problem)) return planes_plan(problem);
  const Problem p = problem.pass == Pass::wgrad ? problem : with_rows_of_vectors(problem);
  const auto tables = std::make_shared<const Tables>(p);
  const TiledProduct& t = tables->t;
  return {.images_per_strip = t.product.images_per_strip,
          .rows_per_strip = t.product.rows_per_strip,
          .pieces = tables->pieces(p.pass),
          .slices = t.slices,
          .workspace = measured([&](Measure& memory) { Shared(memory, tables->weight_bytes, tables->bias_bytes); }),
          .scratch = p.pass == Pass::wgrad ? measured<WgradBench>(p.dtype, t, tables->channels)
                                           : measured<Bench>(p.dtype, t, tables->channels),
          .tables = tables,
          .epilogue = !is_sum_type(p.dtype)  ? Epilogue::none
                      : p.g.P == problem.g.P ? Epilogue::windows
                                             : Epilogue::activation,
          .activates = is_sum_type(p.dtype)};
}

inline CpuRung rung{.can = can, .why_not = why_not, .plan = plan, .best = best};

}  // namespace convlab::register_tiled
