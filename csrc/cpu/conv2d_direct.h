// Convolution on the CPU, direct: each output by the definition, for sixteen channels at once.
//
// What it does    The channels that a sum does not run over (k in forward and wgrad, c in dgrad) lie side by side in vector
//                 registers: one element of x (or dy) times a row of sixteen weights (or dy) is added to sixteen sums that
//                 stay in registers. The row comes from a copy of the weights (or dy) packed for it, in the sums' own type.
//                 Taps outside x are cut off before the loop. Pieces of work are independent and every sum has one order:
//                 the same bits for any number of threads.
// Against `reference`  no test and no index arithmetic per multiply-add, vector registers, all cores.
// What bounds it  loads: each sixteen multiply-adds read their weights again. Fewer than sixteen channels a group waste the
//                 rest of the lanes, depthwise fifteen of sixteen.
// What is next    several pixels for each row of weights, from packed panels that stay in the first cache.
//
// Torch-free: each function makes the pieces [begin, end), and the caller spreads them over threads.
#pragma once
#include <vector>

#include "../dtype.h"
#include "../geometry/conv2d.h"
#include "../geometry/ranges.h"

namespace convlab::direct {

constexpr int kLanes = 16;  // sums a piece of code keeps at once: one AVX-512 register of floats, four of SSE

inline int blocks_of(int channels) { return (channels + kLanes - 1) / kLanes; }

// sums[l] += value * row[l]
template <class A> inline void multiply_add(A* sums, A value, const A* row) {
  for (int l = 0; l < kLanes; l++) sums[l] += value * row[l];
}

// w [K, C/groups, R, S] -> [groups, blocks of Kg, C/groups, R, S, 16], zeros in the lanes past Kg
template <class T> std::vector<acc_t<T>> pack_for_forward(const Conv2d& g, const T* w) {
  const int64_t depth = (int64_t)g.Cg() * g.R * g.S, blocks = blocks_of(g.Kg());
  std::vector<acc_t<T>> packed(g.groups * blocks * depth * kLanes);
  for (int64_t k = 0; k < g.K; k++) {
    const int64_t group = k / g.Kg(), lane = k % g.Kg();
    for (int64_t i = 0; i < depth; i++) packed[((group * blocks + lane / kLanes) * depth + i) * kLanes + lane % kLanes] = acc_t<T>(w[k * depth + i]);
  }
  return packed;
}

// w [K, C/groups, R, S] -> [groups, blocks of Cg, Kg, R, S, 16], zeros in the lanes past Cg
template <class T> std::vector<acc_t<T>> pack_for_dgrad(const Conv2d& g, const T* w) {
  const int64_t taps = (int64_t)g.R * g.S, blocks = blocks_of(g.Cg());
  std::vector<acc_t<T>> packed(g.groups * blocks * g.Kg() * taps * kLanes);
  for (int64_t k = 0; k < g.K; k++)
    for (int64_t c = 0; c < g.Cg(); c++)
      for (int64_t i = 0; i < taps; i++)
        packed[(((k / g.Kg() * blocks + c / kLanes) * g.Kg() + k % g.Kg()) * taps + i) * kLanes + c % kLanes] = acc_t<T>(w[(k * g.Cg() + c) * taps + i]);
  return packed;
}

// dy [N, K, P, Q] -> [groups, blocks of Kg, N, P, Q, 16], zeros in the lanes past Kg
template <class T> std::vector<acc_t<T>> pack_for_wgrad(const Conv2d& g, const T* dy) {
  const int64_t plane = (int64_t)g.P * g.Q, blocks = blocks_of(g.Kg());
  std::vector<acc_t<T>> packed(g.groups * blocks * g.N * plane * kLanes);
  for (int64_t n = 0; n < g.N; n++)
    for (int64_t k = 0; k < g.K; k++) {
      const int64_t group = k / g.Kg(), lane = k % g.Kg();
      acc_t<T>* to = packed.data() + ((group * blocks + lane / kLanes) * g.N + n) * plane * kLanes + lane % kLanes;
      for (int64_t i = 0; i < plane; i++) to[i * kLanes] = acc_t<T>(dy[(n * g.K + k) * plane + i]);
    }
  return packed;
}

// The rows (n, p) of y [N, K, P, Q] from x [N, C, H, W], packed weights, and bias [K] or null
template <class T> void forward(const Conv2d& g, const T* x, const acc_t<T>* packed, const T* bias, T* y, int64_t begin, int64_t end) {
  using A = acc_t<T>;
  const int64_t x_plane = (int64_t)g.H * g.W, y_plane = (int64_t)g.P * g.Q, depth = (int64_t)g.Cg() * g.R * g.S;
  for (int64_t row = begin; row < end; row++) {
    const int64_t n = row / g.P, p = row % g.P;
    const int h0 = int(p) * g.stride_h - g.pad_h;
    const Range taps_h = places_inside(g.R, g.H, g.dilation_h, h0);
    for (int group = 0; group < g.groups; group++)
      for (int block = 0; block < blocks_of(g.Kg()); block++) {
        const A* w = packed + ((int64_t)group * blocks_of(g.Kg()) + block) * depth * kLanes;
        const int64_t k0 = (int64_t)group * g.Kg() + block * kLanes;
        const int lanes = std::min(kLanes, g.Kg() - block * kLanes);
        for (int q = 0; q < g.Q; q++) {
          const int w0 = q * g.stride_w - g.pad_w;
          const Range taps_w = places_inside(g.S, g.W, g.dilation_w, w0);
          A sums[kLanes] = {};
          for (int l = 0; bias && l < lanes; l++) sums[l] = A(bias[k0 + l]);
          for (int c = 0; c < g.Cg(); c++) {
            const T* xc = x + (n * g.C + (int64_t)group * g.Cg() + c) * x_plane;
            for (int r = taps_h.begin; r < taps_h.end; r++)
              for (int s = taps_w.begin; s < taps_w.end; s++)
                multiply_add(sums, A(xc[(h0 + r * g.dilation_h) * g.W + w0 + s * g.dilation_w]), w + (((int64_t)c * g.R + r) * g.S + s) * kLanes);
          }
          for (int l = 0; l < lanes; l++) y[(n * g.K + k0 + l) * y_plane + p * g.Q + q] = T(sums[l]);
        }
      }
  }
}

// A tap, and the output that reads the place in question through it; in one dimension.
struct Reader {
  int tap, output;
};

// All readers of place h of x
inline void find_readers(std::vector<Reader>& readers, int h, int outputs, int kernel, int stride, int pad, int dilation) {
  readers.clear();
  for (int r = 0; r < kernel; r++) {
    const int ph = h + pad - r * dilation;  // p * stride
    if (ph >= 0 && ph % stride == 0 && ph / stride < outputs) readers.push_back({r, ph / stride});
  }
}

// The rows (n, h) of dx [N, C, H, W] from dy [N, K, P, Q] and packed weights
template <class T> void dgrad(const Conv2d& g, const T* dy, const acc_t<T>* packed, T* dx, int64_t begin, int64_t end) {
  using A = acc_t<T>;
  const int64_t x_plane = (int64_t)g.H * g.W, y_plane = (int64_t)g.P * g.Q, depth = (int64_t)g.Kg() * g.R * g.S;
  std::vector<Reader> rows;
  std::vector<std::vector<Reader>> columns(g.W);
  for (int v = 0; v < g.W; v++) find_readers(columns[v], v, g.Q, g.S, g.stride_w, g.pad_w, g.dilation_w);
  for (int64_t row = begin; row < end; row++) {
    const int64_t n = row / g.H, h = row % g.H;
    find_readers(rows, int(h), g.P, g.R, g.stride_h, g.pad_h, g.dilation_h);
    for (int group = 0; group < g.groups; group++)
      for (int block = 0; block < blocks_of(g.Cg()); block++) {
        const A* w = packed + ((int64_t)group * blocks_of(g.Cg()) + block) * depth * kLanes;
        const int64_t c0 = (int64_t)group * g.Cg() + block * kLanes;
        const int lanes = std::min(kLanes, g.Cg() - block * kLanes);
        for (int v = 0; v < g.W; v++) {
          A sums[kLanes] = {};
          for (int k = 0; k < g.Kg(); k++) {
            const T* dyk = dy + (n * g.K + (int64_t)group * g.Kg() + k) * y_plane;
            for (const Reader& i : rows)
              for (const Reader& j : columns[v])
                multiply_add(sums, A(dyk[i.output * g.Q + j.output]), w + (((int64_t)k * g.R + i.tap) * g.S + j.tap) * kLanes);
          }
          for (int l = 0; l < lanes; l++) dx[(n * g.C + c0 + l) * x_plane + h * g.W + v] = T(sums[l]);
        }
      }
  }
}

// The taps (c, r, s), c < C, of dw [K, C/groups, R, S], for all k of c's group, from packed dy and x [N, C, H, W]. An image's
// terms are added up before they join the sum, so that its error grows with the root of the images, not of all terms.
template <class T> void wgrad(const Conv2d& g, const acc_t<T>* packed, const T* x, T* dw, int64_t begin, int64_t end) {
  using A = acc_t<T>;
  const int64_t x_plane = (int64_t)g.H * g.W, y_plane = (int64_t)g.P * g.Q, taps = (int64_t)g.R * g.S;
  for (int64_t tap = begin; tap < end; tap++) {
    const int64_t c = tap / taps, group = c / g.Cg();
    const int r = int(tap % taps) / g.S, s = int(tap % g.S);
    const int shift_h = r * g.dilation_h - g.pad_h, shift_w = s * g.dilation_w - g.pad_w;
    const Range rows = places_inside(g.P, g.H, g.stride_h, shift_h), columns = places_inside(g.Q, g.W, g.stride_w, shift_w);
    for (int block = 0; block < blocks_of(g.Kg()); block++) {
      const A* dyb = packed + (group * blocks_of(g.Kg()) + block) * g.N * y_plane * kLanes;
      A sums[kLanes] = {};
      for (int64_t n = 0; n < g.N; n++) {
        const T* xc = x + (n * g.C + c) * x_plane;
        A image[kLanes] = {};
        for (int p = rows.begin; p < rows.end; p++)
          for (int q = columns.begin; q < columns.end; q++)
            multiply_add(image, A(xc[(p * g.stride_h + shift_h) * g.W + q * g.stride_w + shift_w]), dyb + (n * y_plane + p * g.Q + q) * kLanes);
        for (int l = 0; l < kLanes; l++) sums[l] += image[l];
      }
      const int64_t k0 = group * g.Kg() + block * kLanes;
      const int lanes = std::min(kLanes, g.Kg() - block * kLanes);
      for (int l = 0; l < lanes; l++) dw[((k0 + l) * g.Cg() + c % g.Cg()) * taps + tap % taps] = T(sums[l]);
    }
  }
}

// The elements k of db [K] from dy [N, K, P, Q]
template <class T> void bias_grad(const Conv2d& g, const T* dy, T* db, int64_t begin, int64_t end) {
  using A = acc_t<T>;
  const int plane = g.P * g.Q;
  for (int64_t k = begin; k < end; k++) {
    A sum = 0;
    for (int64_t n = 0; n < g.N; n++) {
      const T* dyk = dy + (n * g.K + k) * plane;
      A lanes[kLanes] = {}, image = 0;
      for (int i = 0; i < plane; i++) lanes[i % kLanes] += A(dyk[i]);
      for (int l = 0; l < kLanes; l++) image += lanes[l];
      sum += image;
    }
    db[k] = T(sum);
  }
}

}  // namespace convlab::direct
