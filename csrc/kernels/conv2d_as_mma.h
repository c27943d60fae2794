// The three passes of a convolution as matrix products for tensor_core_tile.h, a group at a time:
//
//              D     rows m      columns n   steps k    A                    B
//   forward    y     n, p, q     k           r, s, c    x, unrolled          w as filter [k][r, s, c]
//   dgrad      dx    n, h, w     c           r, s, k    dy, unrolled         w as filter [c][r, s, k]
//   wgrad      dw    k           r, s, c     n, p, q    dy                   x, unrolled
//
// Channels are the innermost steps (or columns) and pixels the rows: whichever of the two lies side by side in memory, so
// it does in a tile. dgrad's strides go by residue classes, a class a part, and wgrad's sum by slices, as in
// conv2d_as_gemm.h; classes of few channels are columns of one part instead, which reads dy once for all of them. Forward
// and dgrad are one Map: along each dimension, outputs u meet inputs by their i-th tap at u step + origin + i delta.
#pragma once
#include "device/divisor.h"
#include "geometry/conv2d.h"
#include "geometry/residues.h"
#include "kernels/tensor_core_tile.h"

namespace convlab {

// A tensor [N, channels, H, W] in either layout: elements between neighbours.
struct Pitches {
  long long image, channel, pixel;
};

inline Pitches pitches_of(long long channels, long long pixels, bool channels_last) {
  return channels_last ? Pitches{channels * pixels, 1, channels} : Pitches{channels * pixels, pixels, 1};
}

// One dimension of forward or of a residue class of dgrad
struct TapAxis {
  int places, first, every;  // the outputs first + u every, u < places
  int taps, tap0, tap_every;  // the taps tap0 + i tap_every, i < taps
  int step, origin, delta;
};

CONVLAB_HD inline TapAxis forward_axis(int outputs, int kernel, int stride, int pad, int dilation) {
  return {outputs, 0, 1, kernel, 0, 1, stride, -pad, dilation};
}
CONVLAB_HD inline TapAxis dgrad_axis(int residue, int size, int kernel, Divisor stride, int pad, int dilation) {
  const Residue c = residue_class(residue, size, kernel, stride, pad, dilation);
  return {c.places, c.first, stride, c.taps, c.tap0, c.tap_every, 1, c.output0, -c.output_every};
}

CONVLAB_HD inline TapAxis joined_axis(int size, int kernel, int stride, int pad) {
  const JoinedClasses c = joined_classes(kernel, stride, pad);
  return {size / stride, 0, stride, c.taps, 0, 1, 1, c.origin, -1};
}

// What parts have in common
template <class T> struct MmaPart {
  const T *a_base, *b_base;
  long long rows;
  int columns;
  int a_h, a_w, b_h, b_w;  // bounds of the coordinates
  bool a_wide, b_wide;  // chunks of 16 bytes of A, of B, are side by side and aligned
  bool fours;  // columns 4 i to 4 i + 3 lie side by side in D, on a multiple of four elements
};

constexpr Position kNowhere = {0, kFarOutside, kFarOutside};

// kChannelsLast: how the input (x, or dgrad's dy) lies
template <class T, bool kChannelsLast> struct ImageMap {
  Conv2d g;
  bool dgrad, joined;  // joined: dgrad's residue classes are columns, [class][c], and the filter is laid out so
  const T *input, *filter,
      *bias;  // filter [groups][columns][R S depth, then up to a multiple of a chunk]; bias may be null
  T* output;
  Pitches in, out;
  int depth, filter_pitch;  // channels of a group of the input; elements of a filter
  Divisor by_depth;
  bool wide, fours;
  // What takes divisions is done once, on the host, and not by every block: set_parts()
  TapAxis h, v;  // of all parts, but of dgrad's residue classes
  Divisor by_classes, by_across, stride_h, stride_w;  // how many of those there are, and along a row
  int class_columns;

  struct Part : MmaPart<T> {
    static constexpr bool kLinesInner = !kChannelsLast, kBAsA = false, kLineSums = false, wants_line_sums = false;
    int rows_together;  // of D, so many rows lie side by side, on a multiple of so many elements
    bool rows_inner;  // of D, rows lie side by side
    TapAxis h, v;
    TapWalk walk;
    TapPosition<T> first_tap;  // of the first line
    Pitches in, out;
    const T* bias;
    T* output;
    Divisor by_depth;
    int steps, in_columns, out_columns, filter_pitch, filter_columns;
    int class_columns, classes_across;

    __device__ int tiles(int K) const { return (steps + K - 1) / K; }
    __device__ void row(long long m, Position& a, long long& d) const {
      a = kNowhere, d = -1;
      if (m >= this->rows) return;
      const long long places = (long long)h.places * v.places, image = m / places;
      const int place = int(m - image * places), uh = place / v.places, uv = place - uh * v.places;
      const int ih = uh * h.step + h.origin, iv = uv * v.step + v.origin;
      a = {image * in.image + ((long long)ih * in_columns + iv) * in.pixel, ih, iv};
      d = image * out.image + ((long long)(h.first + uh * h.every) * out_columns + v.first + uv * v.every) * out.pixel;
    }
    __device__ void column(long long n, Position& b, long long& d) const {
      b = kNowhere, d = -1;
      if (n >= this->columns) return;
      const int of_class = int(n) / class_columns, channel = int(n) - of_class * class_columns;
      b = {n * filter_pitch, 0, 0};
      d = channel * out.channel +
          ((long long)(of_class / classes_across) * out_columns + of_class % classes_across) * out.pixel;
    }
    __device__ void step(int tile, int i, int K, Position& a, Position& b) const {
      const int k = tile * K + i;
      a = b = kNowhere;
      if (k >= steps) return;
      const int tap = by_depth.quotient(k), c = k - tap * by_depth.by, th = tap / v.taps, tv = tap - th * v.taps;
      const int ih = th * h.delta, iv = tv * v.delta;
      a = {c * in.channel + ((long long)ih * in_columns + iv) * in.pixel, ih, iv};
      const int r = h.tap0 + th * h.tap_every, s = v.tap0 + tv * v.tap_every;
      b = {(long long)(r * filter_columns + s) * by_depth.by + c, 0, 0};
    }
    __device__ float bias_of(long long n) const { return bias ? float(bias[n]) : 0.0f; }
    template <int n> __device__ void store_together(long long d, const Vector<float, n>& sum) const {
      Vector<T, n> v;
#pragma unroll
      for (int i = 0; i < n; i++) v.at[i] = T(sum.at[i]);
      store_vector(output + d, v);
    }
  };

  void set_parts() {
    const bool classes = dgrad && !joined;
    by_classes = Divisor(classes ? classes_of(g) : 1);
    by_across = Divisor(classes ? classes_with_taps(g.S, g.stride_w, g.dilation_w) : 1);
    stride_h = Divisor(g.stride_h), stride_w = Divisor(g.stride_w);
    class_columns = dgrad ? g.Cg() : g.Kg();
    h = joined ? joined_axis(g.H, g.R, g.stride_h, g.pad_h) : forward_axis(g.P, g.R, g.stride_h, g.pad_h, g.dilation_h);
    v = joined ? joined_axis(g.W, g.S, g.stride_w, g.pad_w) : forward_axis(g.Q, g.S, g.stride_w, g.pad_w, g.dilation_w);
  }

  // z: the group, and of dgrad the residue class
  CONVLAB_HD Part part(int z) const { return part(z, axis(z, true), axis(z, false)); }

  // The same, by the first two threads of a block: axes are what takes time. Not inlined: all tiles share one copy.
  __attribute__((noinline)) __device__ void make_part(int z, Part& made) const {
    const int thread = int(threadIdx.x);
    if (thread < 2) (thread == 0 ? made.h : made.v) = axis(z, thread == 0);
    __syncwarp();
    if (thread == 0) made = part(z, made.h, made.v);
  }

 private:
  CONVLAB_HD TapAxis axis(int z, bool vertical) const {
    if (!dgrad || joined) return vertical ? h : v;
    const int of_class = z % by_classes;
    return dgrad_axis(vertical ? of_class / by_across : of_class % by_across, vertical ? g.H : g.W,
                      vertical ? g.R : g.S, vertical ? stride_h : stride_w, vertical ? g.pad_h : g.pad_w,
                      vertical ? g.dilation_h : g.dilation_w);
  }

  CONVLAB_HD Part part(int z, const TapAxis& h, const TapAxis& v) const {
    Part p;
    p.h = h, p.v = v;
    const int group = z / by_classes;
    p.class_columns = class_columns, p.classes_across = g.stride_w;
    p.columns = p.class_columns * (joined ? g.stride_h * g.stride_w : 1);
    p.rows = (long long)g.N * p.h.places * p.v.places;
    p.in = in, p.out = out, p.by_depth = by_depth, p.filter_pitch = filter_pitch,
    p.filter_columns = joined ? p.v.taps : g.S;
    p.steps = p.h.taps * p.v.taps * depth;
    p.a_h = dgrad ? g.P : g.H, p.a_w = dgrad ? g.Q : g.W, p.b_h = p.b_w = 1;
    p.in_columns = p.a_w, p.out_columns = dgrad ? g.W : g.Q;
    p.a_base = input + group * (depth * in.channel);
    p.b_base = filter + (long long)group * p.columns * filter_pitch;
    p.bias = bias ? bias + group * p.columns : nullptr;
    p.output = output + group * (p.class_columns * out.channel);
    // a chunk of a filter is one of a tap's channels, or of all taps in their order
    const bool of_a_tap = depth % (kChunkBytes / int(sizeof(T))) == 0;
    p.a_wide = wide, p.b_wide = of_a_tap || joined || p.h.taps * p.v.taps == g.R * g.S;
    p.first_tap = {p.a_base, p.b_base, 0, 1, 0, 0, 0};
    p.walk = {max(p.steps, 1), 1, 0, 0, 0, 0, 0, 0};
    if (of_a_tap) {
      const long long row = (long long)p.in_columns * in.pixel;
      p.first_tap.b += (p.h.tap0 * p.filter_columns + p.v.tap0) * depth, p.first_tap.left = p.h.taps * p.v.taps;
      p.walk = {depth,
                p.v.taps,
                p.h.delta,
                p.v.delta,
                p.v.delta * in.pixel - depth,
                p.h.delta * row - p.v.taps * p.v.delta * in.pixel,
                (p.v.tap_every - 1) * depth,
                (p.h.tap_every * p.filter_columns - p.v.taps * p.v.tap_every) * depth};
    }
    p.fours = fours, p.rows_inner = out.pixel == 1;
    p.rows_together = !p.rows_inner || p.h.every * p.v.every != 1 || out.channel % 2 ? 1 : out.channel % 4 ? 2 : 4;
    return p;
  }
};

// kChannelsLast: how dy and x lie, both
template <class T, bool kChannelsLast> struct FilterMap {
  Conv2d g;
  const T *dy, *x;
  float *dw, *db;  // [slices][K][taps][C], and [slices][K] or null
  T* whole;  // [K][taps][C] in place of dw where there is one slice and it can be stored as it is, or null
  Pitches of_dy, of_x;
  int dy_depth, x_depth;  // channels of a group, up to a multiple of a chunk where they were laid out anew
  bool dy_wide, x_wide;
  long long slice;  // steps in each but the last
  long long filters;  // elements of dw
  int Cg, Kg, line;  // channels and filters of a group, elements of a filter
  Divisor by_slices, by_plane, by_row, by_depth, by_S;  // by P Q, by Q, and by x_depth

  struct Part : MmaPart<T> {
    static constexpr bool kLinesInner = kChannelsLast, kBAsA = true, kLineSums = true, rows_inner = false;
    static constexpr int rows_together = 1;
    bool wants_line_sums;
    Conv2d g;
    Pitches of_dy, of_x;
    float *output, *sums;
    T* whole;
    Divisor by_plane, by_row, by_depth, by_S;
    int Cg, line, begin, steps;  // begin: inside the plane of the slice's first image

    __device__ int tiles(int K) const { return (steps + K - 1) / K; }
    __device__ void row(long long m, Position& a, long long& d) const {
      a = kNowhere, d = -1;
      if (m >= this->rows) return;
      a = {m * of_dy.channel, 0, 0}, d = m * line;
    }
    __device__ void column(long long n, Position& b, long long& d) const {
      b = kNowhere, d = -1;
      if (n >= this->columns) return;
      const int tap = int(n) / by_depth, c = int(n) - tap * by_depth, r = tap / by_S, s = tap - r * g.S;
      const int h = r * g.dilation_h, v = s * g.dilation_w;
      b = {c * of_x.channel + ((long long)h * g.W + v) * of_x.pixel, h, v};
      d = c >= Cg ? -1 : tap * Cg + c;
    }
    __device__ void step(int tile, int i, int K, Position& a, Position& b) const {
      const long long k = (long long)tile * K + i;
      a = b = kNowhere;
      if (k >= steps) return;
      const int all = begin + int(k), image = by_plane.quotient(all), pq = all - image * by_plane.by,
                p = by_row.quotient(pq);
      const int h = p * g.stride_h - g.pad_h, v = (pq - p * g.Q) * g.stride_w - g.pad_w;
      a = {image * of_dy.image + pq * of_dy.pixel, 0, 0};
      b = {image * of_x.image + ((long long)h * g.W + v) * of_x.pixel, h, v};
    }
    __device__ float bias_of(long long) const { return 0.0f; }
    template <int n> __device__ void store_together(long long d, const Vector<float, n>& sum) const {
      if (!whole) return store_vector(output + d, sum);
      Vector<T, n> v;
#pragma unroll
      for (int i = 0; i < n; i++) v.at[i] = T(sum.at[i]);
      store_vector(whole + d, v);
    }
    __device__ void store_line_sum(long long m, float sum) const { sums[m] = sum; }
  };

  // z: the group and the slice
  __attribute__((noinline)) __device__ void make_part(int z, Part& made) const {
    if (threadIdx.x == 0) made = part(z);
  }

  __device__ Part part(int z) const {
    const int group = z / by_slices, i = z - group * by_slices, plane = by_plane;
    const long long from = i * slice, image = from / plane;
    Part p;
    p.g = g;
    p.of_dy = of_dy, p.of_x = of_x, p.by_plane = by_plane, p.by_row = by_row, p.by_depth = by_depth, p.by_S = by_S;
    p.a_base = dy + image * of_dy.image + group * (dy_depth * of_dy.channel);
    p.b_base = x + image * of_x.image + group * (x_depth * of_x.channel);
    p.begin = int(from - image * plane), p.steps = int(min((long long)g.N * plane - from, slice));
    p.rows = Kg, p.columns = x_depth * g.R * g.S, p.Cg = Cg, p.line = line;
    p.a_h = p.a_w = 1, p.b_h = g.H, p.b_w = g.W;
    p.a_wide = dy_wide, p.b_wide = x_wide;
    const long long of_group = (long long)group * Kg * line;
    p.output = dw + i * filters + of_group;
    p.whole = whole ? whole + of_group : nullptr;
    p.sums = db ? db + (long long)i * g.K + group * Kg : nullptr;
    p.wants_line_sums = db != nullptr;
    p.fours = Cg % 4 == 0;
    return p;
  }
};

// ---- tensors as those maps take them ----

constexpr int kLayoutThreads = 256;

// w [K, C/groups, R, S] in either layout -> filter [lines][taps][depth], then zeros up to `pitch`; lines are k and depth
// c (forward), or lines c of every group and depth k (dgrad). grid (lines, ceil(depth / 256))
template <class T, class Rounding>
__global__ void __launch_bounds__(kLayoutThreads)
    filter_kernel(Conv2d g, bool dgrad, bool channels_last, int depth, int pitch, const T* __restrict__ w, T* filter) {
  const int i = int(blockIdx.y) * kLayoutThreads + int(threadIdx.x), line = int(blockIdx.x), taps = g.R * g.S;
  T* to = filter + (long long)line * pitch;
  if (i < pitch - taps * depth) to[taps * depth + i] = T(0.0f);
  if (i >= depth) return;
  const int channels = dgrad ? g.Kg() : g.Cg(), group = dgrad ? line / g.Cg() : 0;
  const long long k = dgrad ? group * g.Kg() + i : line;
  const int c = dgrad ? line % g.Cg() : i;
  const long long tap_pitch = channels_last ? g.Cg() : 1;
  const T* from = w + k * g.Cg() * taps + c * (channels_last ? 1 : taps);
  for (int tap = 0; tap < taps; tap++)
    to[tap * depth + i] = i < channels ? Rounding::round(from[tap * tap_pitch]) : T(0.0f);
}

struct AsItIs {
  template <class T> static __device__ T round(T x) { return x; }
};
struct ToTf32 {
  static __device__ float round(float x) { return __uint_as_float(to_tf32(x)); }
};

// w in either layout -> filter [groups][class][c][taps][depth] of joined classes, zero where a class has no such tap.
// grid (C classes, ceil(depth / 256))
template <class T, class Rounding>
__global__ void __launch_bounds__(kLayoutThreads)
    joined_filter_kernel(Conv2d g, bool channels_last, int depth, int pitch, const T* __restrict__ w, T* filter) {
  const int i = int(blockIdx.y) * kLayoutThreads + int(threadIdx.x), line = int(blockIdx.x);
  const int Cg = g.Cg(), of_class = line / Cg % (g.stride_h * g.stride_w);
  const int group = line / (Cg * g.stride_h * g.stride_w), c = line % Cg;
  const JoinedClasses h = joined_classes(g.R, g.stride_h, g.pad_h), v = joined_classes(g.S, g.stride_w, g.pad_w);
  const int r0 = h.tap0 + of_class / g.stride_w, s0 = v.tap0 + of_class % g.stride_w;
  const long long filters = (long long)Cg * g.R * g.S, k = group * g.Kg() + i;
  T* to = filter + (long long)line * pitch;
  if (i < pitch - h.taps * v.taps * depth) to[h.taps * v.taps * depth + i] = T(0.0f);
  if (i >= depth) return;
  for (int th = 0; th < h.taps; th++)
    for (int tv = 0; tv < v.taps; tv++) {
      const int r = r0 + th * g.stride_h, s = s0 + tv * g.stride_w;
      const bool is = i < g.Kg() && unsigned(r) < unsigned(g.R) && unsigned(s) < unsigned(g.S);
      const long long at = channels_last ? ((long long)r * g.S + s) * Cg + c : ((long long)c * g.R + r) * g.S + s;
      to[(th * v.taps + tv) * depth + i] = is ? Rounding::round(w[k * filters + at]) : T(0.0f);
    }
}

constexpr int kTransposed = 32;  // filters, and channels, of a tile

// The same for dgrad of w that lies channels_last, [k][taps][c]: for each tap of a group a transposition.
// grid (taps groups ceil(C/groups / 32), ceil(depth / 32)); 32 x 8 threads
template <class T, class Rounding>
__global__ void __launch_bounds__(kLayoutThreads)
    filter_transposed_kernel(Conv2d g, int depth, int pitch, const T* __restrict__ w, T* filter) {
  SHARED(T, tile, [kTransposed][kTransposed + 2]);
  const int lane = int(threadIdx.x) % kTransposed, first = int(threadIdx.x) / kTransposed, taps = g.R * g.S;
  const int Cg = g.Cg(), Kg = g.Kg(), tap = int(blockIdx.x) % taps, of_channels = int(blockIdx.x) / taps;
  const int across = (Cg + kTransposed - 1) / kTransposed, group = of_channels / across;
  const int c0 = of_channels % across * kTransposed, k0 = int(blockIdx.y) * kTransposed;
  for (int i = first; i < kTransposed; i += kLayoutThreads / kTransposed) {
    const int k = k0 + i, c = c0 + lane;
    const bool is = k < Kg && c < Cg;
    tile[i][lane] = is ? Rounding::round(w[((long long)(group * Kg + k) * taps + tap) * Cg + c]) : T(0.0f);
  }
  __syncthreads();
  for (int i = first; i < kTransposed; i += kLayoutThreads / kTransposed) {
    const int k = k0 + lane, c = c0 + i;
    if (c >= Cg) break;
    T* to = filter + (long long)(group * Cg + c) * pitch;
    if (k < depth) to[tap * depth + k] = tile[lane][i];
    if (tap == 0 && k < pitch - taps * depth) to[taps * depth + k] = T(0.0f);
  }
}

// from [N, C, pixels] in either layout -> to [N, pixels, groups, depth], zeros beyond the channels of a group: a thread
// makes chunks, a warp those of pixels side by side. grid (ceil(pixels / 256), chunks of a pixel, images) or less in y, z
template <class T>
__global__ void __launch_bounds__(kLayoutThreads)
    chunks_kernel(int images, int groups, int Cg, int depth, long long pixels, Pitches pitches,
                  const T* __restrict__ from, T* __restrict__ to) {
  constexpr int kChunk = kChunkBytes / int(sizeof(T));
  const long long pixel = (long long)blockIdx.x * kLayoutThreads + threadIdx.x;
  const int depths = groups * depth;
  if (pixel >= pixels) return;
  for (int channel = int(blockIdx.y) * kChunk; channel < depths; channel += int(gridDim.y) * kChunk) {
    const int group = channel / depth, c = channel - group * depth;
    const T* of_channel = from + (group * Cg + c) * pitches.channel + pixel * pitches.pixel;
    for (int n = int(blockIdx.z); n < images; n += int(gridDim.z)) {
      Vector<T, kChunk> chunk;
#pragma unroll
      for (int i = 0; i < kChunk; i++)
        chunk.at[i] = c + i < Cg ? of_channel[n * pitches.image + i * pitches.channel] : T(0.0f);
      store_vector(to + (n * pixels + pixel) * depths + channel, chunk);
    }
  }
}

}  // namespace convlab
