// The three passes of a convolution as matrix products, without ever making the unrolled matrix (a group at a time):
//
//              D     rows m   columns n   steps k   A                B, unrolled from
//   forward    y     k        n, p, q     c, r, s   w[k, c, r, s]    x[n, c, p stride - pad + r dilation, ..]
//   dgrad      dx    c        n, h, w     k, r, s   w[k, c, r, s]    dy[n, k, (h + pad - r dilation) / stride, ..]
//   wgrad      dw    k        c, r, s     n, p, q   dy[n, k, p, q]   x as in forward, the matrix transposed
//
// Each is a Map for gemm.h: a host-made problem, whose part(z) is what the blocks with blockIdx.z = z work on.
//
// dgrad with a stride divides only where the division is exact. The positions (h, w) of dx fall into stride_h x
// stride_w residue classes (geometry/residues.h), and each class meets only the taps of its own residue: a class a
// part, each a dense product, together as much work as forward. A class that meets no tap has no steps and stores
// zeros; where they are all known beforehand (classes_of), as with 1 x 1 filters and a stride of 2, they are no parts,
// and dx is filled with zeros first.
//
// wgrad's sum is long (N P Q terms) and its output small, so the sum is cut into slices, a slice a part, each into a
// plane of float32 partial sums that are then added in order (add_slices.h): deterministic. The number of slices
// follows from the shape alone. The bias gradient is the sum of A's rows, made on the way by the blocks of the first
// column.
#pragma once
#include "geometry/conv2d.h"
#include "geometry/residues.h"
#include "kernels/gemm.h"

namespace convlab {

// Part of a map that all passes share. T: the element type in memory; sums are float32.
template <class T> struct GemmPart {
  using Element = T;
  const T *a_base, *b_base;
  int rows;
  long long columns, begin, end;  // of the steps
  int bounds_h, bounds_w;
  // Columns 4 i to 4 i + 3 lie side by side in D, and begin on a multiple of four: one instruction stores them.
  bool fours;

  __device__ float add(int) const { return 0.0f; }  // to the sums of row m
  template <class D, int n> static __device__ void store_at(D* d, const Vector<float, n>& sums) {
    Vector<D, n> v;
#pragma unroll
    for (int i = 0; i < n; i++) v.at[i] = D(sums.at[i]);
    store_vector(d, v);
  }
};

template <class T> struct ForwardMap {
  Conv2d g;
  const T *x, *w, *bias;  // bias may be null
  T* y;

  struct Part : GemmPart<T> {
    static constexpr bool kStepsAlongLanes = false, wants_row_sums = false;
    Conv2d g;
    const T* bias;
    T* d_base;

    __device__ const T* a(long long k0) const { return this->a_base + k0; }
    __device__ const T* b(long long) const { return this->b_base; }
    __device__ Row row(int m) const { return {m * g.Cg() * g.R * g.S, m * g.P * g.Q}; }
    __device__ Column column(long long n) const {
      const int pq = int(n % (g.P * g.Q)), p = pq / g.Q, q = pq % g.Q;
      const long long image = n / (g.P * g.Q);
      const int h = p * g.stride_h - g.pad_h, v = q * g.stride_w - g.pad_w;
      return {image * g.C * g.H * g.W + (long long)h * g.W + v, image * g.K * g.P * g.Q + pq, h, v};
    }
    __device__ Step step(long long k0, int i) const {
      const int k = int(k0) + i, taps = g.R * g.S, c = k / taps, r = k % taps / g.S, s = k % g.S;
      return {i, c * g.H * g.W + r * g.dilation_h * g.W + s * g.dilation_w, r * g.dilation_h, s * g.dilation_w};
    }
    __device__ float add(int m) const { return bias ? float(bias[m]) : 0.0f; }
    template <int n> __device__ void store(long long d, const Vector<float, n>& sums) const {
      this->store_at(d_base + d, sums);
    }
    __device__ void store_row_sum(int, float) const {}
  };

  // z: the group
  __device__ Part part(int z) const {
    Part p;
    p.g = g;
    const long long depth = (long long)g.Cg() * g.R * g.S;
    p.a_base = w + z * g.Kg() * depth;
    p.b_base = x + (long long)z * g.Cg() * g.H * g.W;
    p.d_base = y + (long long)z * g.Kg() * g.P * g.Q;
    p.bias = bias ? bias + z * g.Kg() : nullptr;
    p.rows = g.Kg(), p.columns = (long long)g.N * g.P * g.Q, p.begin = 0, p.end = depth;
    p.bounds_h = g.H, p.bounds_w = g.W;
    p.fours = g.P * g.Q % 4 == 0;
    return p;
  }
};

template <class T> struct DgradMap {
  Conv2d g;
  const T *dy, *w;
  T* dx;

  struct Part : GemmPart<T> {
    static constexpr bool kStepsAlongLanes = false, wants_row_sums = false;
    Conv2d g;
    Residue h, v;
    T* d_base;

    __device__ const T* a(long long) const { return this->a_base; }
    __device__ const T* b(long long) const { return this->b_base; }
    __device__ Row row(int m) const { return {m * g.R * g.S, m * g.H * g.W}; }
    __device__ Column column(long long n) const {
      const int place = int(n % (h.places * v.places)), uh = place / v.places, uv = place % v.places;
      const long long image = n / (h.places * v.places);
      const int p = uh + h.output0, q = uv + v.output0;
      return {image * g.K * g.P * g.Q + (long long)p * g.Q + q,
              image * g.C * g.H * g.W + (long long)(h.first + uh * g.stride_h) * g.W + v.first + uv * g.stride_w, p, q};
    }
    __device__ Step step(long long k0, int i) const {
      const int k = int(k0) + i, taps = h.taps * v.taps, c = k / taps, ih = k % taps / v.taps, iv = k % v.taps;
      return {c * g.Cg() * g.R * g.S + (h.tap0 + ih * h.tap_every) * g.S + v.tap0 + iv * v.tap_every,
              c * g.P * g.Q - ih * h.output_every * g.Q - iv * v.output_every, -ih * h.output_every,
              -iv * v.output_every};
    }
    template <int n> __device__ void store(long long d, const Vector<float, n>& sums) const {
      this->store_at(d_base + d, sums);
    }
    __device__ void store_row_sum(int, float) const {}
  };

  // z: the group and the residue class
  __device__ Part part(int z) const {
    const int classes = classes_of(g), across = classes_with_taps(g.S, g.stride_w, g.dilation_w), group = z / classes;
    Part p;
    p.g = g;
    p.h = residue_class(z % classes / across, g.H, g.R, g.stride_h, g.pad_h, g.dilation_h);
    p.v = residue_class(z % across, g.W, g.S, g.stride_w, g.pad_w, g.dilation_w);
    p.a_base = w + (long long)group * g.Kg() * g.Cg() * g.R * g.S;
    p.b_base = dy + (long long)group * g.Kg() * g.P * g.Q;
    p.d_base = dx + (long long)group * g.Cg() * g.H * g.W;
    p.rows = g.Cg(), p.columns = (long long)g.N * p.h.places * p.v.places, p.begin = 0,
    p.end = (long long)g.Kg() * p.h.taps * p.v.taps;
    p.bounds_h = g.P, p.bounds_w = g.Q;
    p.fours = g.stride_h == 1 && g.stride_w == 1 && g.H * g.W % 4 == 0;
    return p;
  }
};

template <class T> struct WgradMap {
  Conv2d g;
  const T *dy, *x;
  float* dw;  // [slices, K, C/groups, R, S]
  float* db;  // [slices, K], or null
  int slices;
  long long slice;  // steps in each but the last; of several, a multiple of the tile's

  struct Part : GemmPart<T> {
    static constexpr bool kStepsAlongLanes = true;
    bool wants_row_sums;
    Conv2d g;
    float *d_base, *db_base;

    // the image of the table's first step
    __device__ const T* a(long long k0) const { return this->a_base + k0 / (g.P * g.Q) * g.K * g.P * g.Q; }
    __device__ const T* b(long long k0) const { return this->b_base + k0 / (g.P * g.Q) * g.C * g.H * g.W; }
    __device__ Row row(int m) const { return {m * g.P * g.Q, m * g.Cg() * g.R * g.S}; }
    __device__ Column column(long long n) const {
      const int i = int(n), taps = g.R * g.S, c = i / taps, h = i % taps / g.S * g.dilation_h,
                v = i % g.S * g.dilation_w;
      return {(long long)c * g.H * g.W + (long long)h * g.W + v, n, h, v};
    }
    __device__ Step step(long long k0, int i) const {
      const int k = int(k0 % (g.P * g.Q)) + i, image = k / (g.P * g.Q), pq = k % (g.P * g.Q);
      const int h = pq / g.Q * g.stride_h - g.pad_h, v = pq % g.Q * g.stride_w - g.pad_w;
      return {image * g.K * g.P * g.Q + pq, image * g.C * g.H * g.W + h * g.W + v, h, v};
    }
    template <int n> __device__ void store(long long d, const Vector<float, n>& sums) const {
      this->store_at(d_base + d, sums);
    }
    __device__ void store_row_sum(int m, float sum) const { db_base[m] = sum; }
  };

  // z: the group and the slice
  __device__ Part part(int z) const {
    const int group = z / slices, i = z % slices;
    const long long filters = (long long)g.K * g.Cg() * g.R * g.S;
    Part p;
    p.g = g;
    p.a_base = dy + (long long)group * g.Kg() * g.P * g.Q;
    p.b_base = x + (long long)group * g.Cg() * g.H * g.W;
    p.d_base = dw + i * filters + group * (filters / g.groups);
    p.db_base = db ? db + (long long)i * g.K + group * g.Kg() : nullptr;
    p.wants_row_sums = db != nullptr;
    p.rows = g.Kg(), p.columns = (long long)g.Cg() * g.R * g.S;
    p.begin = i * slice, p.end = min((long long)g.N * g.P * g.Q, p.begin + slice);
    p.bounds_h = g.H, p.bounds_w = g.W;
    p.fours = p.columns % 4 == 0;
    return p;
  }
};

}  // namespace convlab
