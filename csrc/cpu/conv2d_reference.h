// Convolution as a course writes it down: sequential loops over every index, one multiply-add in the middle. Slow and
// plain; what the other algorithms are explained by. Torch-free.
#pragma once
#include "../dtype.h"
#include "../geometry/conv2d.h"

namespace convlab::reference {

// x [N, C, H, W], w [K, C/groups, R, S], bias [K] or null -> y [N, K, P, Q]
template <class T> void forward(const Conv2d& g, const T* x, const T* w, const T* bias, T* y) {
  for (int n = 0; n < g.N; n++)
    for (int k = 0; k < g.K; k++)
      for (int p = 0; p < g.P; p++)
        for (int q = 0; q < g.Q; q++) {
          acc_t<T> sum = bias ? acc_t<T>(bias[k]) : acc_t<T>(0);
          for (int c = 0; c < g.Cg(); c++)
            for (int r = 0; r < g.R; r++)
              for (int s = 0; s < g.S; s++) {
                const int h = p * g.stride_h - g.pad_h + r * g.dilation_h, v = q * g.stride_w - g.pad_w + s * g.dilation_w;
                if (h < 0 || h >= g.H || v < 0 || v >= g.W) continue;
                const int64_t channel = (int64_t)n * g.C + k / g.Kg() * g.Cg() + c;
                sum += acc_t<T>(x[(channel * g.H + h) * g.W + v]) * acc_t<T>(w[(((int64_t)k * g.Cg() + c) * g.R + r) * g.S + s]);
              }
          y[(((int64_t)n * g.K + k) * g.P + p) * g.Q + q] = T(sum);
        }
}

// dy [N, K, P, Q], w [K, C/groups, R, S] -> dx [N, C, H, W]
template <class T> void dgrad(const Conv2d& g, const T* dy, const T* w, T* dx) {
  for (int n = 0; n < g.N; n++)
    for (int c = 0; c < g.C; c++)
      for (int h = 0; h < g.H; h++)
        for (int v = 0; v < g.W; v++) {
          const int group = c / g.Cg();
          acc_t<T> sum = 0;
          for (int k = group * g.Kg(); k < (group + 1) * g.Kg(); k++)
            for (int r = 0; r < g.R; r++)
              for (int s = 0; s < g.S; s++) {
                const int ph = h + g.pad_h - r * g.dilation_h, qw = v + g.pad_w - s * g.dilation_w;  // p stride_h, q stride_w
                if (ph < 0 || ph % g.stride_h || ph / g.stride_h >= g.P || qw < 0 || qw % g.stride_w || qw / g.stride_w >= g.Q) continue;
                const int64_t at = (((int64_t)n * g.K + k) * g.P + ph / g.stride_h) * g.Q + qw / g.stride_w;
                sum += acc_t<T>(dy[at]) * acc_t<T>(w[(((int64_t)k * g.Cg() + c % g.Cg()) * g.R + r) * g.S + s]);
              }
          dx[(((int64_t)n * g.C + c) * g.H + h) * g.W + v] = T(sum);
        }
}

// dy [N, K, P, Q], x [N, C, H, W] -> dw [K, C/groups, R, S]
template <class T> void wgrad(const Conv2d& g, const T* dy, const T* x, T* dw) {
  for (int k = 0; k < g.K; k++)
    for (int c = 0; c < g.Cg(); c++)
      for (int r = 0; r < g.R; r++)
        for (int s = 0; s < g.S; s++) {
          acc_t<T> sum = 0;
          for (int n = 0; n < g.N; n++)
            for (int p = 0; p < g.P; p++)
              for (int q = 0; q < g.Q; q++) {
                const int h = p * g.stride_h - g.pad_h + r * g.dilation_h, v = q * g.stride_w - g.pad_w + s * g.dilation_w;
                if (h < 0 || h >= g.H || v < 0 || v >= g.W) continue;
                const int64_t channel = (int64_t)n * g.C + k / g.Kg() * g.Cg() + c;
                sum += acc_t<T>(dy[(((int64_t)n * g.K + k) * g.P + p) * g.Q + q]) * acc_t<T>(x[(channel * g.H + h) * g.W + v]);
              }
          dw[(((int64_t)k * g.Cg() + c) * g.R + r) * g.S + s] = T(sum);
        }
}

}  // namespace convlab::reference
