// Leaky ReLU and ReLU, forward and backward, element by element. The output may be the input.
//
//   leaky ReLU   y = x > 0 ? x : x slope         dx = x > 0 ? dy : dy slope
//   ReLU         y = x > 0 ? x : 0, NaN stays    dx = y <= 0 ? 0 : dy
//
// ReLU is not leaky ReLU with slope 0: -inf times 0 is NaN.
//
// What it does    16 bytes a thread, loaded and stored in one instruction each. Tensors may start anywhere: as long as they all lie
//                 the same way to the multiples of 16 bytes, single threads make the few elements before the first of these and
//                 behind the last; otherwise every thread makes one element.
// What bounds it  memory: 2 elements moved an element forward, 3 backward.
// What is next    nothing here: to move less, this must become the epilogue of the kernel that makes x.
// What is counted  by the simulator; tools/kernel_notes.py writes it here, and says how to read it
//                              x     dy   sectors   at least
//   LeNet C3    forward     1.00             16.0       16.0
//   LeNet C3    backward    1.00   1.00      16.0       16.0
//   ResNet-20   forward     1.00             16.0       16.0
//   ResNet-20   backward    1.00   1.00      16.0       16.0
#include "../device/vector.h"
#include "launchers.h"

#include <type_traits>

namespace convlab {
namespace {

constexpr int kThreads = 256;

template <class A> struct LeakyRelu {
  A slope;
  __device__ A operator()(A x) const { return x > A(0) ? x : x * slope; }
};

template <class A> struct LeakyReluBackward {
  A slope;
  __device__ A operator()(A dy, A x) const { return x > A(0) ? dy : dy * slope; }
};

template <class A> struct Relu {
  __device__ A operator()(A x) const { return x <= A(0) ? A(0) : x; }
};

template <class A> struct ReluBackward {
  __device__ A operator()(A dy, A y) const { return y <= A(0) ? A(0) : dy; }
};

// Elements [0, elements) in pieces: `head` single ones, then vectors of n, then single ones again. A thread makes one piece.
struct Pieces {
  long long elements;
  int head;

  template <int n> CONVLAB_HD long long vectors() const { return (elements - head) / n; }
  template <int n> CONVLAB_HD long long count() const { return elements - vectors<n>() * (n - 1); }
  // the single element of piece i >= vectors
  template <int n> CONVLAB_HD long long single(long long i) const { return i - vectors<n>() < head ? i - vectors<n>() : i + vectors<n>() * (n - 1); }
};

// in [elements] -> out [elements].  grid ceil(pieces / 256)
template <int n, class T, class F> __global__ void __launch_bounds__(kThreads) unary_kernel(F f, Pieces p, const T* in, T* out) {
  const long long i = (long long)blockIdx.x * kThreads + threadIdx.x;
  if (i < p.vectors<n>()) {
    Vector<T, n> v = load_vector<n>(in + p.head + i * n);
    for (int k = 0; k < n; k++) v.at[k] = T(f(acc_t<T>(v.at[k])));
    store_vector(out + p.head + i * n, v);
  } else if (i < p.count<n>()) {
    const long long j = p.single<n>(i);
    out[j] = T(f(acc_t<T>(in[j])));
  }
}

// a, b [elements] -> out [elements].  grid ceil(pieces / 256)
template <int n, class T, class F> __global__ void __launch_bounds__(kThreads) binary_kernel(F f, Pieces p, const T* a, const T* b, T* out) {
  const long long i = (long long)blockIdx.x * kThreads + threadIdx.x;
  if (i < p.vectors<n>()) {
    Vector<T, n> v = load_vector<n>(a + p.head + i * n);
    const Vector<T, n> w = load_vector<n>(b + p.head + i * n);
    for (int k = 0; k < n; k++) v.at[k] = T(f(acc_t<T>(v.at[k]), acc_t<T>(w.at[k])));
    store_vector(out + p.head + i * n, v);
  } else if (i < p.count<n>()) {
    const long long j = p.single<n>(i);
    out[j] = T(f(acc_t<T>(a[j]), acc_t<T>(b[j])));
  }
}

int misalignment(const void* p) { return int(reinterpret_cast<unsigned long long>(p) % kWidestAccess); }

// Calls f with the widest vectors that all tensors allow, as a constant, and the pieces.
template <class T, class F> void in_pieces(long long elements, const T* first, bool alike, F f) {
  constexpr int n = kWidestAccess / int(sizeof(T));
  if (!alike) return f(std::integral_constant<int, 1>{}, Pieces{elements, 0});
  const long long to_multiple = (kWidestAccess - misalignment(first)) % kWidestAccess / int(sizeof(T));
  f(std::integral_constant<int, n>{}, Pieces{elements, int(to_multiple < elements ? to_multiple : elements)});
}

template <class T, class F> void unary(F f, long long elements, const void* in, void* out, Stream stream) {
  const T* x = static_cast<const T*>(in);
  in_pieces(elements, x, misalignment(in) == misalignment(out), [&](auto width, Pieces pieces) {
    constexpr int n = decltype(width)::value;
    launch(unary_kernel<n, T, F>, blocks_for(pieces.count<n>(), kThreads), dim3(kThreads), 0, stream, f, pieces, x, static_cast<T*>(out));
  });
}

template <class T, class F> void binary(F f, long long elements, const void* a, const void* b, void* out, Stream stream) {
  const T *x = static_cast<const T*>(a), *y = static_cast<const T*>(b);
  in_pieces(elements, x, misalignment(a) == misalignment(b) && misalignment(a) == misalignment(out), [&](auto width, Pieces pieces) {
    constexpr int n = decltype(width)::value;
    launch(binary_kernel<n, T, F>, blocks_for(pieces.count<n>(), kThreads), dim3(kThreads), 0, stream, f, pieces, x, y, static_cast<T*>(out));
  });
}

}  // namespace

void leaky_relu_forward(DType dtype, long long elements, double negative_slope, const void* x, void* y, Stream stream) {
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    unary<T>(LeakyRelu<acc_t<T>>{acc_t<T>(negative_slope)}, elements, x, y, stream);
  });
}

void leaky_relu_backward(DType dtype, long long elements, double negative_slope, const void* dy, const void* x, void* dx, Stream stream) {
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    binary<T>(LeakyReluBackward<acc_t<T>>{acc_t<T>(negative_slope)}, elements, dy, x, dx, stream);
  });
}

void relu_forward(DType dtype, long long elements, const void* x, void* y, Stream stream) {
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    unary<T>(Relu<acc_t<T>>{}, elements, x, y, stream);
  });
}

void relu_backward(DType dtype, long long elements, const void* dy, const void* y, void* dx, Stream stream) {
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    binary<T>(ReluBackward<acc_t<T>>{}, elements, dy, y, dx, stream);
  });
}

}  // namespace convlab
