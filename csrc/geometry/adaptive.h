// What an adaptive pooling is: window p of P begins at floor(p H / P) and ends before ceil((p + 1) H / P), so that the
// windows cover all of x, and lie over one another where P does not divide H. And what each output is made of, for CPU
// and CUDA. Torch-free, for host and device.
#pragma once
#include "dtype.h"
#include "geometry/pool2d.h"
#include "geometry/ranges.h"

namespace convlab {

// x and dx [planes, H, W], y, dy and indices [planes, P, Q]
struct Adaptive {
  long long planes;
  int H, W, P, Q;
};

// The positions of x (of `size`) in window p of `outputs`, in one dimension
CONVLAB_HD inline Range adaptive_window(int p, int size, int outputs) {
  return {int((long long)p * size / outputs), int(((long long)(p + 1) * size + outputs - 1) / outputs)};
}

// The most positions that a window has, in one dimension
CONVLAB_HD inline int adaptive_widest(int size, int outputs) {
  int widest = 0;
  for (int p = 0; p < outputs; p++) {
    const Range r = adaptive_window(p, size, outputs);
    if (r.end - r.begin > widest) widest = r.end - r.begin;
  }
  return widest;
}

// The windows over position h of x, in one dimension
CONVLAB_HD inline Range adaptive_windows_over(int h, int size, int outputs) {
  return adaptive_window(h, outputs, size);
}

// The average of window (p, q) of a plane of x
template <class T> CONVLAB_HD inline T adaptive_average(const Adaptive& g, const T* x, int p, int q) {
  const Range rows = adaptive_window(p, g.H, g.P), columns = adaptive_window(q, g.W, g.Q);
  acc_t<T> sum = 0;
  for (int h = rows.begin; h < rows.end; h++)
    for (int w = columns.begin; w < columns.end; w++) sum += acc_t<T>(x[h * g.W + w]);
  return T(sum / acc_t<T>((rows.end - rows.begin) * (columns.end - columns.begin)));
}

// dx at (h, w), of a plane of an average's dy
template <class T> CONVLAB_HD inline T adaptive_average_gradient(const Adaptive& g, const T* dy, int h, int w) {
  const Range rows = adaptive_windows_over(h, g.H, g.P), columns = adaptive_windows_over(w, g.W, g.Q);
  acc_t<T> sum = 0;
  for (int p = rows.begin; p < rows.end; p++) {
    const Range down = adaptive_window(p, g.H, g.P);
    for (int q = columns.begin; q < columns.end; q++) {
      const Range across = adaptive_window(q, g.W, g.Q);
      sum += acc_t<T>(dy[p * g.Q + q]) / acc_t<T>((down.end - down.begin) * (across.end - across.begin));
    }
  }
  return T(sum);
}

// Where the maximum of window (p, q) of a plane of x is: the first of equals, but the last NaN
template <class T> CONVLAB_HD inline int adaptive_winner(const Adaptive& g, const T* x, int p, int q) {
  const Range rows = adaptive_window(p, g.H, g.P), columns = adaptive_window(q, g.W, g.Q);
  int winner = rows.begin * g.W + columns.begin;
  acc_t<T> best = acc_t<T>(x[winner]);
  for (int h = rows.begin; h < rows.end; h++)
    for (int w = columns.begin; w < columns.end; w++) {
      const acc_t<T> value = acc_t<T>(x[h * g.W + w]);
      if (value > best || value != value) best = value, winner = h * g.W + w;
    }
  return winner;
}

// dx at (h, w), of a plane of a maximum's dy and indices
template <class T>
CONVLAB_HD inline T adaptive_maximum_gradient(const Adaptive& g, const T* dy, const long long* indices, int h, int w) {
  const Range rows = adaptive_windows_over(h, g.H, g.P), columns = adaptive_windows_over(w, g.W, g.Q);
  acc_t<T> sum = 0;
  for (int p = rows.begin; p < rows.end; p++)
    for (int q = columns.begin; q < columns.end; q++)
      if (indices[p * g.Q + q] == h * g.W + w) sum += acc_t<T>(dy[p * g.Q + q]);
  return T(sum);
}

}  // namespace convlab
