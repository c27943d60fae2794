// register_tiled on the CPU, up to the kernels of csrc/cpu/isa: how a problem is cut into strips, panels and slices,
// and the order of packing, computing and unpacking.
#pragma once
#include <algorithm>

#include "cpu/classes.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"

namespace convlab::register_tiled {

// A strip of the source should leave room in a second cache of 1 MB for the weights of a tile and the target.
constexpr int64_t kStripBytes = 256 << 10;
constexpr int64_t kStripPixels =
    1024;  // of the target: 16 bytes each in the table of addresses, 128 in the target's panel
constexpr int kPlanes = 16;  // channels of the source: fewer planes are faster read where they lie than packed
constexpr int64_t kPiecesWanted = 16;  // enough to share among a few threads; more where strips are small anyway
constexpr int64_t kSliceBytes = 4 << 20;  // of wgrad's partial sums, all slices together

// Cuts the target's rows into strips; element: bytes of a sum
inline void cut(Product& p, int64_t element, int64_t pixels_wanted) {
  const int64_t image = int64_t(p.rows.source) * p.columns.source * p.depth * element;
  const int64_t pixels = std::max<int64_t>(1, int64_t(p.rows.target) * p.columns.target);
  const int64_t fit = std::min(kStripBytes / std::max<int64_t>(1, image), pixels_wanted / pixels);
  p.images_per_strip = int(std::clamp<int64_t>(fit, 1, std::max<int64_t>(1, p.images / kPiecesWanted)));
  if (pixels * p.images_per_strip < 128)
    p.images_per_strip = int(std::clamp<int64_t>(std::min(fit, 128 / pixels), 1, std::max(1, p.images)));
  p.rows_per_strip = p.rows.target;
  if (fit >= 1) return;
  // the rows of the source that a strip needs beside its own: about a kernel's
  const int64_t strips =
      std::max((image + kStripBytes - 1) / kStripBytes, (pixels + pixels_wanted - 1) / pixels_wanted);
  p.rows_per_strip = int(std::max<int64_t>(1, (p.rows.target + strips - 1) / strips));
}

// What `run` and `wgrad` of csrc/cpu/isa put into their scratch, from above
inline int64_t scratch_bytes(const Product& p, int64_t element, const CpuKernels& k) {
  const int64_t pixels = int64_t(p.images_per_strip) * p.rows_per_strip * p.columns.target;
  const int64_t terms = int64_t(taps_of_classes(p.rows)) * taps_of_classes(p.columns) * p.depth,
                segments = int64_t(p.rows.count) * p.columns.count;
  const int64_t tables = segments * sizeof(Segment) + terms * sizeof(Term) + pixels * sizeof(Pixel);
  const int64_t target = (pixels + 1) * k.tile_vectors * k.vector_bytes;
  const int64_t source =
      int64_t(p.images_per_strip) * p.rows.source * p.columns.source * p.depth * element + k.vector_bytes;
  return tables + target + source + 8 * kCacheLine;
}

// forward, or dgrad with source and target changed over
template <class T>
void run(const CpuKernels& k, DType dtype, Product p, const Filters& f, const T* source, const T* w, const T* bias,
         T* target) {
  using A = acc_t<T>;
  const ConvFunctions& functions = k.conv[int(dtype)];
  const int64_t element = sizeof(A), lanes = k.lanes(dtype);
  cut(p, element, kStripPixels);
  p.in_planes = p.depth <= kPlanes && sizeof(T) == sizeof(A) && p.source.w == 1;
  const int64_t vectors = (p.width + lanes - 1) / lanes, panels = (vectors + k.tile_vectors - 1) / k.tile_vectors;
  const int64_t wanted =
      std::max<int64_t>(1, std::min(panels, kPiecesWanted / std::max<int64_t>(1, p.strips() * p.groups)));
  p.panels_per_piece = int((panels + wanted - 1) / wanted);
  const int64_t parts = (panels + p.panels_per_piece - 1) / p.panels_per_piece, pieces = p.strips() * p.groups * parts;

  // Weights that one strip alone meets are packed by who needs them, and go no further than that thread's cache.
  const bool own_weights = p.strips() == 1;
  const int64_t taps = int64_t(f.R) * f.S, vector = taps * f.depth * k.vector_bytes,
                packed_bytes = own_weights ? 0 : p.groups * vectors * vector;
  const CpuScratch memory(CpuScratch::shared, packed_bytes + p.groups * vectors * k.vector_bytes);
  char* const packed = memory.get();
  A* const packed_bias = reinterpret_cast<A*>(packed + packed_bytes);
  for (int64_t i = 0; i < p.groups * vectors * lanes; i++) {
    const int64_t group = i / (vectors * lanes), channel = i % (vectors * lanes);
    packed_bias[i] = bias && channel < p.width ? A(bias[group * p.width + channel]) : A(0);
  }
  if (!own_weights)
    parallel_over(p.groups * vectors, taps * f.depth * lanes, [&](int64_t begin, int64_t end) {
      functions.pack_weights(f, w, packed + begin * vector, begin, end);
    });

  const int64_t work =
      int64_t(p.images) * p.rows.target * p.columns.target * p.groups * p.width * taps * p.depth / pieces;
  parallel_over(pieces, work, [&](int64_t begin, int64_t end) {
    const CpuScratch own(CpuScratch::own, scratch_bytes(p, element, k) + (own_weights ? k.tile_vectors * vector : 0));
    functions.tiled(p, f, source, w, own_weights ? nullptr : packed, packed_bias, target, begin, end, own.get());
  });
}

template <class T>
void wgrad(const CpuKernels& k, DType dtype, Product p, const Filters& f, const Axis& rows, const Axis& columns,
           const T* dy, const T* x, T* dw) {
  const ConvFunctions& functions = k.conv[int(dtype)];
  const int64_t element = sizeof(acc_t<T>), lanes = k.lanes(dtype);
  cut(p, element, kStripPixels);
  const int64_t vectors = (p.width + lanes - 1) / lanes, panels = (vectors + k.tile_vectors - 1) / k.tile_vectors,
                taps = int64_t(f.R) * f.S;
  const int64_t vector = taps * f.depth * k.vector_bytes, slice = p.groups * vectors * vector;
  int64_t slices = std::max<int64_t>(1, std::min({kPiecesWanted / p.groups, p.strips(), kSliceBytes / slice}));
  for (int64_t even = slices; even > slices / 2; even--)  // slices of equally many strips, if there are such
    if (p.strips() % even == 0) {
      slices = even;
      break;
    }
  const int64_t wanted = std::clamp<int64_t>(kPiecesWanted / (slices * p.groups), 1, panels);
  p.panels_per_piece = int((panels + wanted - 1) / wanted);
  const int64_t parts = (panels + p.panels_per_piece - 1) / p.panels_per_piece, pieces = slices * p.groups * parts;

  const CpuScratch memory(CpuScratch::shared, slices == 1 ? 0 : slices * slice);
  char* const sums = memory.get();
  parallel_over(
      pieces, int64_t(p.images) * p.rows.target * p.columns.target * p.groups * p.width * taps * p.depth / pieces,
      [&](int64_t begin, int64_t end) {
        const CpuScratch own(CpuScratch::own, scratch_bytes(p, element, k) +
                                                  (slices == 1 ? p.panels_per_piece * k.tile_vectors * vector : 0));
        functions.tiled_wgrad(p, f, rows, columns, int(slices), dy, x, dw, sums, begin, end, own.get());
      });
  if (slices > 1)
    parallel_over(p.groups * vectors, taps * f.depth * lanes * slices, [&](int64_t begin, int64_t end) {
      functions.unpack_weights(f, sums + begin * vector, int(slices), slice / element, dw, begin, end);
    });
}

}  // namespace convlab::register_tiled
