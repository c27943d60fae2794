// Convolution as a course writes it down: sequential loops over every index, one multiply-add in the middle. Slow and
// plain; what the other algorithms are explained by.
#pragma once
#include "cpu/conv2d/tap_tables.h"

namespace convlab::reference {

// Where element (n, c, h, w) of a tensor lies
inline int64_t at(const Strides& t, int n, int c, int h, int w) { return n * t.n + c * t.c + h * t.h + w * t.w; }

// Where the weight of lane l of a group, for channel d of the sum and tap (r, s), lies
inline int64_t at(const Filters& f, int group, int l, int d, int r, int s) {
  return group * f.group + l * f.lane + d * f.depth_stride + (r * f.S + s) * f.tap;
}

// x [N, C, H, W], w [K, C/groups, R, S], bias [K] or null -> y [N, K, P, Q], summed as A
template <class T, class A = acc_t<T>>
void forward(const Conv2d& g, const Strides& xs, const Filters& f, const Strides& ys, const T* x, const T* w,
             const T* bias, T* y) {
  for (int n = 0; n < g.N; n++)
    for (int k = 0; k < g.K; k++)
      for (int p = 0; p < g.P; p++)
        for (int q = 0; q < g.Q; q++) {
          A sum = bias ? A(bias[k]) : A(0);
          for (int c = 0; c < g.Cg(); c++)
            for (int r = 0; r < g.R; r++)
              for (int s = 0; s < g.S; s++) {
                const int h = p * g.stride_h - g.pad_h + r * g.dilation_h,
                          v = q * g.stride_w - g.pad_w + s * g.dilation_w;
                if (h < 0 || h >= g.H || v < 0 || v >= g.W) continue;
                const int group = k / g.Kg();
                sum += A(x[at(xs, n, group * g.Cg() + c, h, v)]) * A(w[at(f, group, k % g.Kg(), c, r, s)]);
              }
          y[at(ys, n, k, p, q)] = T(sum);
        }
}

// dy [N, K, P, Q], w [K, C/groups, R, S], bias [C] or null -> dx [N, C, H, W]
template <class T>
void dgrad(const Conv2d& g, const Strides& ys, const Filters& f, const Strides& xs, const T* dy, const T* w,
           const T* bias, T* dx) {
  for (int n = 0; n < g.N; n++)
    for (int c = 0; c < g.C; c++)
      for (int h = 0; h < g.H; h++)
        for (int v = 0; v < g.W; v++) {
          const int group = c / g.Cg();
          acc_t<T> sum = bias ? acc_t<T>(bias[c]) : acc_t<T>(0);
          for (int k = group * g.Kg(); k < (group + 1) * g.Kg(); k++)
            for (int r = 0; r < g.R; r++)
              for (int s = 0; s < g.S; s++) {
                const int ph = h + g.pad_h - r * g.dilation_h,
                          qw = v + g.pad_w - s * g.dilation_w;  // p stride_h, q stride_w
                if (ph < 0 || ph % g.stride_h || ph / g.stride_h >= g.P || qw < 0 || qw % g.stride_w ||
                    qw / g.stride_w >= g.Q)
                  continue;
                sum += acc_t<T>(dy[at(ys, n, k, ph / g.stride_h, qw / g.stride_w)]) *
                       acc_t<T>(w[at(f, group, c % g.Cg(), k % g.Kg(), r, s)]);
              }
          dx[at(xs, n, c, h, v)] = T(sum);
        }
}

// dy [N, K, P, Q], x [N, C, H, W] -> dw [K, C/groups, R, S]
template <class T>
void wgrad(const Conv2d& g, const Strides& ys, const Strides& xs, const Filters& f, const T* dy, const T* x, T* dw) {
  for (int k = 0; k < g.K; k++)
    for (int c = 0; c < g.Cg(); c++)
      for (int r = 0; r < g.R; r++)
        for (int s = 0; s < g.S; s++) {
          acc_t<T> sum = 0;
          for (int n = 0; n < g.N; n++)
            for (int p = 0; p < g.P; p++)
              for (int q = 0; q < g.Q; q++) {
                const int h = p * g.stride_h - g.pad_h + r * g.dilation_h,
                          v = q * g.stride_w - g.pad_w + s * g.dilation_w;
                if (h < 0 || h >= g.H || v < 0 || v >= g.W) continue;
                sum += acc_t<T>(dy[at(ys, n, k, p, q)]) * acc_t<T>(x[at(xs, n, k / g.Kg() * g.Cg() + c, h, v)]);
              }
          dw[at(f, k / g.Kg(), k % g.Kg(), c, r, s)] = T(sum);
        }
}

}  // namespace convlab::reference
