// Leaky ReLU, ReLU and ReLU6, forward and backward, element by element. The output may be the input.
//
//   leaky ReLU   y = x > 0 ? x : x slope         dx = positive ? dy : dy slope, where forward wrote positive = x > 0, a byte an element
//   ReLU         y = x > 0 ? x : 0, NaN stays    dx = y <= 0 ? 0 : dy, from the output, which the next layer keeps
//   anyway
//   ReLU6        y = x >= 6 ? 6 : ReLU of x      dx = 0 < y < 6 or NaN ? dy : 0
//
// ReLU is not leaky ReLU with slope 0: -inf times 0 is NaN.
//
// What it does    twice 16 bytes a thread, loaded and stored in one instruction each, both loads before the first
//                 store. Tensors may start anywhere: as long as they all lie the same way to the multiples of 16 bytes,
//                 single threads make the few elements before the first of these and behind the last; otherwise every
//                 thread makes two elements.
// What bounds it  memory: ReLU moves 2 elements an element forward and 3 backward, leaky ReLU 2 and a byte both ways: x
//                 need not be kept.
// A bit, or a byte  leaky ReLU's forward and backward move 18 bytes an element of float32 with a byte for the sign, and
//                 16.25 with a bit; 10 and 8.25 of 16 bits: a bit would save 10 and 17 %. It stays a byte: the second
//                 derivatives, vmap and the CPU take it as torch's bool tensor, and whoever wants those bytes back asks
//                 for a block (conv2d_block.h), which keeps a byte for a window of four.
// What is next    nothing here: to move less, this must become the epilogue of the kernel that makes x.
// What is counted  by the simulator; tools/kernel_notes.py writes it here, and says how to read it
//                              x     dy   positive   sectors   at least
//   LeNet C3    forward     1.00                        12.0       12.0
//   LeNet C3    backward           1.00       1.00      12.0       12.0
//   ResNet-20   forward     1.00                        12.0       12.0
//   ResNet-20   backward           1.00       1.00      12.0       12.0
#include "device/vector.h"
#include "kernels/launchers.h"

#include <type_traits>

namespace convlab {
namespace {

constexpr int kThreads = 256, kTogether = 2;

template <class A> struct LeakyRelu {
  A slope;
  __device__ A operator()(A x) const { return x > A(0) ? x : x * slope; }
};

template <class A> struct LeakyReluBackward {
  A slope;
  __device__ A operator()(A dy, bool positive) const { return positive ? dy : dy * slope; }
};

template <class A> struct Relu {
  __device__ A operator()(A x) const { return x <= A(0) ? A(0) : x; }
};

template <class A> struct ReluBackward {
  __device__ A operator()(A dy, A y) const { return y <= A(0) ? A(0) : dy; }
};

template <class A> struct Relu6 {
  __device__ A operator()(A x) const { return x <= A(0) ? A(0) : x >= A(6) ? A(6) : x; }
};

template <class A> struct Relu6Backward {
  __device__ A operator()(A dy, A y) const { return y <= A(0) || y >= A(6) ? A(0) : dy; }
};

// Elements [0, elements) in pieces: `head` single ones, then vectors of n, then single ones again.
struct Pieces {
  long long elements;
  int head;

  template <int n> CONVLAB_HD long long vectors() const { return (elements - head) / n; }
  template <int n> CONVLAB_HD long long count() const { return elements - vectors<n>() * (n - 1); }
  // the single element of piece i >= vectors
  template <int n> CONVLAB_HD long long single(long long i) const {
    return i - vectors<n>() < head ? i - vectors<n>() : i + vectors<n>() * (n - 1);
  }
};

// The pieces of a thread: kTogether of them, so that their loads are under way together
__device__ __forceinline__ long long piece(int k) {
  return ((long long)blockIdx.x * kTogether + k) * kThreads + threadIdx.x;
}

// in [elements] -> out [elements], and in > 0 [elements] unless `positive` is null.  grid ceil(pieces / 512)
template <int n, class T, class F>
__global__ void __launch_bounds__(kThreads) unary_kernel(F f, Pieces p, const T* in, T* out, bool* positive) {
  using A = acc_t<T>;
  Vector<T, n> vectors[kTogether];
#pragma unroll
  for (int k = 0; k < kTogether; k++)
    if (piece(k) < p.vectors<n>()) vectors[k] = load_vector<n>(in + p.head + piece(k) * n);
#pragma unroll
  for (int k = 0; k < kTogether; k++) {
    if (piece(k) < p.vectors<n>()) {
      const long long j = p.head + piece(k) * n;
      Vector<bool, n> above;
      for (int e = 0; e < n; e++) {
        above.at[e] = A(vectors[k].at[e]) > A(0);
        vectors[k].at[e] = T(f(A(vectors[k].at[e])));
      }
      store_vector(out + j, vectors[k]);
      if (positive) store_vector(positive + j, above);
    } else if (piece(k) < p.count<n>()) {
      const long long j = p.single<n>(piece(k));
      const A v = A(in[j]);
      out[j] = T(f(v));
      if (positive) positive[j] = v > A(0);
    }
  }
}

// a, b [elements] -> out [elements].  grid ceil(pieces / 512)
template <int n, class T, class U, class F>
__global__ void __launch_bounds__(kThreads) binary_kernel(F f, Pieces p, const T* a, const U* b, T* out) {
  Vector<T, n> v[kTogether];
  Vector<U, n> w[kTogether];
#pragma unroll
  for (int k = 0; k < kTogether; k++)
    if (piece(k) < p.vectors<n>()) {
      v[k] = load_vector<n>(a + p.head + piece(k) * n);
      w[k] = load_vector<n>(b + p.head + piece(k) * n);
    }
#pragma unroll
  for (int k = 0; k < kTogether; k++) {
    if (piece(k) < p.vectors<n>()) {
      for (int e = 0; e < n; e++) v[k].at[e] = T(f(acc_t<T>(v[k].at[e]), acc_t<U>(w[k].at[e])));
      store_vector(out + p.head + piece(k) * n, v[k]);
    } else if (piece(k) < p.count<n>()) {
      const long long j = p.single<n>(piece(k));
      out[j] = T(f(acc_t<T>(a[j]), acc_t<U>(b[j])));
    }
  }
}

// How many elements p lies behind a multiple of n elements
template <class T> int place(const T* p, int n) { return int(reinterpret_cast<unsigned long long>(p) / sizeof(T) % n); }

// Calls f with the widest vectors that all tensors allow, as a constant, and the pieces: those tensors must lie alike,
// of which `others` are the remaining ones.
template <class T, class F, class... U> void in_pieces(long long elements, F f, const T* first, const U*... others) {
  constexpr int n = kWidestAccess / int(sizeof(T));
  const int behind = place(first, n);
  if (((others && place(others, n) != behind) || ...)) return f(std::integral_constant<int, 1>{}, Pieces{elements, 0});
  const long long to_multiple = (n - behind) % n;
  f(std::integral_constant<int, n>{}, Pieces{elements, int(to_multiple < elements ? to_multiple : elements)});
}

template <class T, class F>
void unary(F f, long long elements, const void* in, void* out, void* positive, Stream stream) {
  const T* x = static_cast<const T*>(in);
  T* y = static_cast<T*>(out);
  bool* above = static_cast<bool*>(positive);
  const auto launch_it = [&](auto width, Pieces pieces) {
    constexpr int n = decltype(width)::value;
    launch(unary_kernel<n, T, F>, blocks_for(pieces.count<n>(), kThreads * kTogether), dim3(kThreads), 0, stream, f,
           pieces, x, y, above);
  };
  in_pieces(elements, launch_it, x, y, above);
}

template <class T, class U, class F>
void binary(F f, long long elements, const void* a, const void* b, void* out, Stream stream) {
  const T* x = static_cast<const T*>(a);
  const U* y = static_cast<const U*>(b);
  T* z = static_cast<T*>(out);
  const auto launch_it = [&](auto width, Pieces pieces) {
    constexpr int n = decltype(width)::value;
    launch(binary_kernel<n, T, U, F>, blocks_for(pieces.count<n>(), kThreads * kTogether), dim3(kThreads), 0, stream, f,
           pieces, x, y, z);
  };
  in_pieces(elements, launch_it, x, y, z);
}

// An activation of T's sums, made with a slope or nothing
template <template <class> class F, class... Slope>
void forward(DType dtype, long long elements, const void* x, void* y, void* positive, Stream stream, Slope... slope) {
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    unary<T>(F<acc_t<T>>{acc_t<T>(slope)...}, elements, x, y, positive, stream);
  });
}

// kept: a bool an element where there is a slope, else of dy's type
template <template <class> class F, class... Slope>
void backward(DType dtype, long long elements, const void* dy, const void* kept, void* dx, Stream stream,
              Slope... slope) {
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using Kept = std::conditional_t<sizeof...(slope) != 0, bool, T>;
    binary<T, Kept>(F<acc_t<T>>{acc_t<T>(slope)...}, elements, dy, kept, dx, stream);
  });
}

}  // namespace

void leaky_relu_forward(DType dtype, long long elements, double negative_slope, const void* x, void* y, void* positive,
                        Stream stream) {
  forward<LeakyRelu>(dtype, elements, x, y, positive, stream, negative_slope);
}
void leaky_relu_backward(DType dtype, long long elements, double negative_slope, const void* dy, const void* positive,
                         void* dx, Stream stream) {
  backward<LeakyReluBackward>(dtype, elements, dy, positive, dx, stream, negative_slope);
}

void relu_forward(DType dtype, long long elements, const void* x, void* y, Stream stream) {
  forward<Relu>(dtype, elements, x, y, nullptr, stream);
}
void relu_backward(DType dtype, long long elements, const void* dy, const void* y, void* dx, Stream stream) {
  backward<ReluBackward>(dtype, elements, dy, y, dx, stream);
}

void relu6_forward(DType dtype, long long elements, const void* x, void* y, Stream stream) {
  forward<Relu6>(dtype, elements, x, y, nullptr, stream);
}
void relu6_backward(DType dtype, long long elements, const void* dy, const void* y, void* dx, Stream stream) {
  backward<Relu6Backward>(dtype, elements, dy, y, dx, stream);
}

}  // namespace convlab
