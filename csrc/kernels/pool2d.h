// How threads walk over a pooling: what max and average pooling share.
//
// Tensors are [images, rows, columns, channels], where channels is 1 for NCHW (then a plane is an image) and C for
// channels_last. A thread makes a Share of what is written: some rows, of them some columns, of them some channels, so
// that what it loads serves several results, and what lies side by side is one access of up to 16 bytes:
//
//   Share<0, rows, 1, 1>           any window, any layout, any strides
//   Share<0, rows, 1, vector>      any window, channels_last: C is a multiple of the vector
//   Share<k, rows, columns, 1>     windows of 2 x 2 or 3 x 3 with stride 2 and padding 0 or 1, NCHW: columns side by side
//   Share<k, rows, columns, vector>           the same, channels_last
//
// With k known, a thread asks for all that it needs before it computes: addresses outside a tensor are moved inside it,
// and what they give is not used. Blocks are numbered by multiplications (divisor.h): no division an element.
#pragma once
#include <algorithm>

#include "device/divisor.h"
#include "device/vector_of.h"
#include "device/warp_lanes.h"
#include "geometry/pool2d.h"
#include "kernels/plan.h"

namespace convlab {

constexpr int kPoolThreads = 256;

template <int window_, int rows_, int columns_, int channels_> struct Share {
  static constexpr int window = window_, rows = rows_, columns = columns_, channels = channels_;
  static constexpr int stride = 2, pad = window_ - 2;  // of a window that is known
  static constexpr bool across = window_ && channels_ == 1;  // its vectors are of columns
  static constexpr int together = columns * channels;  // elements of a row
};

struct PoolPiece {
  long long image;
  int row, column, channel;  // the first ones
};

struct PoolWalk {
  Pool2d g;
  int channels;
  long long images;
  int images_each;  // in each y of the grid
  int rows;  // of a share, that read or write the same rows: fewer than it has room for where dilation sets them apart
  int apart;  // rows of taps from one output to the next
  Divisor of_channels, of_columns, of_rows;  // the shares of a position, a row, an image
  Divisor stride_h, stride_w, dilation_h, dilation_w, S;

  template <class S> __device__ __forceinline__ PoolPiece piece() const {
    const unsigned i = blockIdx.x * kPoolThreads + threadIdx.x;
    const unsigned line = of_columns.quotient(i), column = i - line * of_columns.by;
    const unsigned image = of_rows.quotient(line), position = of_channels.quotient(column);
    const bool exists = image < unsigned(images_each);
    return {exists ? (long long)blockIdx.y * images_each + image : images,
            int(line - image * of_rows.by) * (S::window ? S::rows : rows), int(position) * S::columns,
            int(column - position * of_channels.by) * S::channels};
  }

  // Where the outputs of a piece begin, in row p
  __device__ __forceinline__ long long output(const PoolPiece& at, int p) const {
    return ((at.image * g.P + p) * g.Q + at.column) * channels + at.channel;
  }
};

// A walk over what is written, [images, height, width, channels], and its grid.
template <class S> PoolWalk walk_of(const Pool2d& g, int channels, bool forward, dim3& grid) {
  constexpr long long kMostPieces = 1 << 30;
  const bool shared = forward ? g.stride_h % g.dilation_h == 0 : g.dilation_h == 1;
  PoolWalk w;
  w.g = g, w.channels = channels, w.images = g.planes / channels;
  w.rows = S::window || shared ? S::rows : 1, w.apart = g.stride_h / g.dilation_h;
  const int height = forward ? g.P : g.H, width = forward ? g.Q : g.W;
  const long long lines = ceil_div(height, w.rows), vectors = channels / S::channels;
  const long long line = ceil_div(width, S::columns) * vectors, image = lines * line;
  if (image > kMostPieces || (long long)std::max(g.W, g.Q) * channels > kGridX)
    throw std::runtime_error("convlab: pooling: an image of " + std::to_string(height) + " x " + std::to_string(width) +
                             " x " + std::to_string(channels) + " is more than one launch can cover");
  w.images_each = int(std::min(w.images, kMostPieces / image));
  w.of_channels = Divisor(vectors), w.of_columns = Divisor(line), w.of_rows = Divisor(lines);
  w.stride_h = Divisor(g.stride_h), w.stride_w = Divisor(g.stride_w), w.S = Divisor(g.S);
  w.dilation_h = Divisor(g.dilation_h), w.dilation_w = Divisor(g.dilation_w);
  grid = dim3(unsigned(ceil_div(w.images_each * image, kPoolThreads)), unsigned(ceil_div(w.images, w.images_each)));
  return w;
}

template <class... P> bool aligned(size_t bytes, const P*... pointers) {
  return (... && (reinterpret_cast<size_t>(pointers) % bytes == 0));
}

// Calls f(Share) for NCHW, windows of k x k that are known, if whole vectors of x lie in every row, and of y.
template <int k, int columns, bool kForward, class F> bool across(const Pool2d& g, const F& f) {
  if (g.W % columns || 2 * g.Q != g.W) return false;
  if constexpr (kForward) f(Share<k, k == 2 ? 1 : 4, columns / 2, 1>{});
  else f(Share<k, 2 * (k - 1), columns, 1>{});
  return true;
}

// Calls f(Share) with the best that a pooling of T allows. `reads` lies as x, `writes` as y in forward, else the other
// way round. known: whether windows of kMostKnown and less come as known ones; small: no offsets, or offsets of a byte.
template <class T, int kMostKnown, bool kForward, class F>
void with_share(const Pool2d& g, int channels, bool vectors, const F& f) {
  constexpr int n = kWidestAccess / int(sizeof(T)), rows = n > 4 ? 2 : 4;
  const bool square = g.R == g.S && g.stride_h == 2 && g.stride_w == 2 && g.pad_h == g.R - 2 && g.pad_w == g.R - 2 &&
                      g.dilation_h == 1 && g.dilation_w == 1;
  if (!vectors) return f(Share<0, 4, 1, 1>{});
  if constexpr (sizeof(T) < 8) {
    const auto known = [&](auto window) {
      constexpr int k = decltype(window)::value;
      if (channels % n == 0) return f(Share < k, kForward && k == 2 ? 1 : 2, kForward ? 1 : 2, n > {});
      if (channels == 1 && across<k, n, kForward>(g, f)) return;
      if constexpr (k == 2) {
        if (channels % 2 == 0) return f(Share<k, kForward ? 1 : 2, kForward ? 1 : 2, 2>{});
        if (channels == 1 && across<k, 2, kForward>(g, f)) return;
      }
      f(Share<0, 4, 1, 1>{});
    };
    if (square && g.R == 2) return known(std::integral_constant<int, 2>{});
    if constexpr (kMostKnown == 3)
      if (square && g.R == 3) return known(std::integral_constant<int, 3>{});
    if (channels % n == 0) return f(Share<0, rows, 1, n>{});
  }
  f(Share<0, 4, 1, 1>{});
}

// Launches a kernel of a share over what is written; arguments: those behind the walk.
template <class S, bool kForward, class... P, class... A>
void launch_walk(void (*kernel)(PoolWalk, P...), const Pool2d& g, int channels, cudaStream_t stream, A... arguments) {
  dim3 grid;
  const PoolWalk walk = walk_of<S>(g, channels, kForward, grid);
  launch(kernel, grid, dim3(kPoolThreads), 0, stream, walk, arguments...);
}

// Launches kernel(Share) with the best share.
template <class T, int kMostKnown, bool kForward, class Kernel, class... A>
void launch_pool(const Pool2d& g, int channels, bool vectors, cudaStream_t stream, const Kernel& kernel,
                 A... arguments) {
  with_share<T, kMostKnown, kForward>(g, channels, vectors, [&](auto share) {
    launch_walk<decltype(share), kForward>(kernel(share), g, channels, stream, arguments...);
  });
}

// The first tap that does not lie before x, in one dimension.
__device__ __forceinline__ int first_tap(int start, const Divisor& dilation) {
  return start < 0 ? int(dilation.quotient(unsigned(-start) + dilation.by - 1)) : 0;
}

__device__ __forceinline__ int moved_inside(int i, int size) { return min(max(i, 0), size - 1); }

// x -> y. An Op has of(A), the value that windows take of an element; State<A>, what becomes of a window: begin(tap) with
// the first tap inside, start(value) with tap 0, take(value, tap), and outside() for a value that changes nothing, where
// windows have padding; and write<Share>(g, p, q, element, states) for a run of outputs.
template <class S, class T, class Op>
__device__ __forceinline__ void pool_forward(const PoolWalk& walk, const T* __restrict__ x, const Op& op) {
  using A = acc_t<T>;
  using State = typename Op::template State<A>;
  using Value = decltype(op.of(A()));
  constexpr int K = S::window, V = S::channels, kWidth = (S::columns - 1) * S::stride + K;
  const PoolPiece at = walk.piece<S>();
  if (at.image >= walk.images) return;
  const Pool2d& g = walk.g;
  const int C = S::across ? 1 : walk.channels, line = g.W * C;
  const int taps_h = K ? K : g.R, taps_w = K ? K : g.S, apart = K ? S::stride : walk.apart;
  const int h0 = at.row * (K ? S::stride : g.stride_h) - (K ? S::pad : g.pad_h);
  const int w0 = at.column * (K ? S::stride : g.stride_w) - (K ? S::pad : g.pad_w);
  const T* const image = x + at.image * g.H * line + at.channel;

  State windows[S::rows][S::together];
#pragma unroll
  for (int o = 0; o < S::rows; o++)
#pragma unroll
    for (int i = 0; i < S::together; i++) {
      const int h = h0 + o * (K ? S::stride : g.stride_h), w = w0 + i / V * S::stride;
      windows[o][i].begin(K ? (h < 0) * K + (w < 0)
                            : first_tap(h, walk.dilation_h) * taps_w + first_tap(w, walk.dilation_w));
    }

  // Where a known window's row is loaded from, and how far its columns lie from there
  const T* from = image + (long long)(K ? moved_inside(h0, g.H) : 0) * line + (S::across ? w0 + S::pad : 0);
  int columns[kWidth > 0 ? kWidth : 1];
#pragma unroll
  for (int j = 0; j < kWidth; j++) columns[j] = moved_inside(w0 + j, g.W) * C;

  const int rows = K ? (S::rows - 1) * S::stride + K : (walk.rows - 1) * apart + taps_h;
#pragma unroll(K ? 16 : 1)
  for (int r = 0; r < rows; r++) {  // each row of x once, for all windows that it is a row of
    const int h = h0 + r * (K ? 1 : g.dilation_h);
    const bool inside = unsigned(h) < unsigned(g.H);
    State row[S::together];
    if constexpr (K) {
      Value values[kWidth][V];
      if constexpr (S::across) {
        const auto wide = load_vector<S::columns * S::stride>(from);
        for (int j = 0; j < S::columns * S::stride; j++) values[j + S::pad][0] = op.of(A(wide.at[j]));
        if constexpr (S::pad != 0) {  // the neighbour's last column
          values[0][0] = __shfl_up_sync(0xffffffffu, values[S::columns * S::stride][0], 1);
          if (threadIdx.x % kWarpLanes == 0 && w0 >= 0) values[0][0] = A(from[-1]);
          if (w0 < 0) values[0][0] = State::outside();
        }
      } else {
#pragma unroll
        for (int j = 0; j < kWidth; j++) {
          const auto vector = load_vector<V>(from + columns[j]);
          const bool outside = (j < S::pad && w0 + j < 0) || (j > 0 && w0 + j >= g.W);
          for (int v = 0; v < V; v++) values[j][v] = outside ? State::outside() : op.of(A(vector.at[v]));
        }
      }
      if (unsigned(h) < unsigned(g.H - 1)) from += line;
#pragma unroll
      for (int i = 0; i < S::together; i++) {
        row[i].start(values[i / V * S::stride][i % V]);  // of an outside first one, nothing takes the tap
#pragma unroll
        for (int s = 1; s < K; s++) row[i].take(values[i / V * S::stride + s][i % V], s);
      }
    } else {
      if (!inside || (apart > taps_h && int(unsigned(r) % unsigned(apart)) >= taps_h)) continue;
      const T* const row_of_x = image + (long long)h * line;
      for (int s = 0; s < taps_w; s++) {
        const int w = w0 + s * g.dilation_w;
        if (unsigned(w) >= unsigned(g.W)) continue;
        const auto vector = load_vector<V>(row_of_x + w * C);
        for (int v = 0; v < V; v++) row[v].take(op.of(A(vector.at[v])), s);
      }
    }
#pragma unroll
    for (int o = 0; o < S::rows; o++) {
      const int tap = r - o * apart;
      if (K && S::pad == 0 && tap == 0) {  // all windows begin inside x
#pragma unroll
        for (int i = 0; i < S::together; i++) windows[o][i] = row[i];
      } else if (inside && unsigned(tap) < unsigned(taps_h)) {
#pragma unroll
        for (int i = 0; i < S::together; i++) windows[o][i].take(row[i], tap * taps_w);
      }
    }
  }
  const long long first = ((at.image * g.P + at.row) * g.Q + at.column) * C + at.channel, next = (long long)g.Q * C;
#pragma unroll
  for (int o = 0; o < S::rows; o++)
    if (o < (K ? S::rows : walk.rows) && at.row + o < g.P)
      op.template write<S>(g, at.row + o, at.column, first + o * next, windows[o]);
}

// dy -> dx [images, H, W, channels]. An Op has Given<A>, what a window gives: to(sum, tap), and unless(outside), after
// which it gives nothing; and load<n, known>(g, element, p, q, given), which reads what n neighbours from window (p, q) on
// give; known: windows of up to 256 taps.
template <class S, class T, class Op>
__device__ __forceinline__ void pool_backward(const PoolWalk& walk, T* __restrict__ dx, const Op& op) {
  using A = acc_t<T>;
  using Given = typename Op::template Given<A>;
  constexpr int K = S::window, V = S::channels;
  const PoolPiece at = walk.piece<S>();
  if (at.image >= walk.images) return;
  const Pool2d& g = walk.g;
  const int C = S::across ? 1 : walk.channels;
  const long long outputs = at.image * g.P * g.Q * C + at.channel;

  A sums[S::rows][S::columns][V] = {};
  if constexpr (K) {
    constexpr int kWide = S::columns / S::stride,
                  kWindows = kWide + (K > S::stride);  // windows over a row of the share
    constexpr int kHigh = S::rows / S::stride + (K > S::stride);  // and over a column
    const int p0 = at.row / S::stride, q0 = at.column / S::stride;
    int from = moved_inside(p0, g.P);
    long long first = outputs + (long long)from * (g.Q * C);  // of the row of windows
    int columns[kWindows];  // how far its windows lie from there
#pragma unroll
    for (int j = 0; j < kWindows; j++) columns[j] = moved_inside(q0 + j, g.Q) * C;
    Given given[kHigh][kWindows][V];
#pragma unroll
    for (int i = 0; i < kHigh; i++) {
      if constexpr (S::across) {
        Given side_by_side[kWide];
        op.template load<kWide, true>(g, first + columns[0], from, q0, side_by_side);
        for (int j = 0; j < kWide; j++) given[i][j][0] = side_by_side[j];
        if (kWindows > kWide)
          op.template load<1, true>(g, first + columns[kWindows - 1], from, columns[kWindows - 1],
                                    given[i][kWindows - 1]);
      } else {
#pragma unroll
        for (int j = 0; j < kWindows; j++)
          op.template load<V, true>(g, first + columns[j], from, moved_inside(q0 + j, g.Q), given[i][j]);
      }
      if (p0 + i < g.P - 1) from++, first += g.Q * C;
    }
#pragma unroll
    for (int i = 0; i < kHigh; i++)
#pragma unroll
      for (int j = 0; j < kWindows; j++) {
        // No branch, which loads would not pass. A window of three begins at every second column
        const bool outside = p0 + i >= g.P || (!(K == 3 && j < kWide) && q0 + j >= g.Q);
        for (int v = 0; v < V; v++) given[i][j][v].unless(outside);
#pragma unroll
        for (int a = 0; a < S::rows; a++)
#pragma unroll
          for (int b = 0; b < S::columns; b++) {
            const int r = a + S::pad - S::stride * i, s = b + S::pad - S::stride * j;
            if (r >= 0 && r < K && s >= 0 && s < K)
              for (int v = 0; v < V; v++) given[i][j][v].to(sums[a][b][v], r * K + s);
          }
      }
  } else {
    const auto first = [](int place, int reach, const Divisor& stride) {
      return int(stride.quotient(unsigned(max(place - reach, 0)) + stride.by - 1));
    };
    const int top = at.row + g.pad_h, left = at.column + g.pad_w;
    const int p_end = min(g.P, int(walk.stride_h.quotient(unsigned(top + walk.rows - 1))) + 1);
    const int q_end = min(g.Q, int(walk.stride_w.quotient(unsigned(left))) + 1);
    const int q_first = first(left, (g.S - 1) * g.dilation_w, walk.stride_w);
    for (int p = first(top, (g.R - 1) * g.dilation_h, walk.stride_h); p < p_end; p++) {
      int r = top - p * g.stride_h;  // of the share's first row, which may be before the window
      if (walk.rows == 1 && g.dilation_h > 1) {
        const int tap = int(walk.dilation_h.quotient(unsigned(r)));
        if (tap * g.dilation_h != r) continue;
        r = tap;
      }
      for (int q = q_first; q < q_end; q++) {
        const int over = left - q * g.stride_w, s = int(walk.dilation_w.quotient(unsigned(over)));
        if (s * g.dilation_w != over) continue;
        Given given[V];
        op.template load<V, V != 1>(g, outputs + (long long)p * (g.Q * C) + q * C, p, q, given);
#pragma unroll
        for (int a = 0; a < S::rows; a++)
          if (a < walk.rows && unsigned(r + a) < unsigned(g.R))
#pragma unroll
            for (int v = 0; v < V; v++) given[v].to(sums[a][0][v], (r + a) * g.S + s);
      }
    }
  }

  T* to = dx + (at.image * g.H * g.W + (long long)at.row * g.W + at.column) * C + at.channel;
#pragma unroll
  for (int a = 0; a < S::rows; a++, to += g.W * C)
#pragma unroll
    for (int b = 0; b < S::columns; b += S::across ? S::columns : 1)
      if (a < (K ? S::rows : walk.rows) && at.row + a < g.H && at.column + b < g.W) {
        constexpr int n = S::across ? S::columns : V;
        A values[n];
        for (int i = 0; i < n; i++) values[i] = sums[a][b + i / V][i % V];
        store_vector(to + b * C, vector_of<T>(values));
      }
}

}  // namespace convlab
