// Leaky ReLU, ReLU and ReLU6, forward and backward, element by element. The output may be the input.
//
//   leaky ReLU   y = x > 0 ? x : x slope         dx = positive ? dy : dy slope, where forward wrote positive = x > 0, a byte an element
//   ReLU         y = x > 0 ? x : 0, NaN stays    dx = y <= 0 ? 0 : dy, from the output, which the next layer keeps
//   anyway
//   ReLU6        y = x >= 6 ? 6 : ReLU of x      dx = 0 < y < 6 or NaN ? dy : 0
//
// ReLU is not leaky ReLU with slope 0: -inf times 0 is NaN.
//
//   leaky ReLU of bits   the same, where positive is a bit an element, of which eight that lie side by side are a byte
//
// What it does    twice 16 bytes a thread (elementwise.h). Of bits, lanes whose elements share a byte shuffle them
//                 together, and the last elements, less than eight, are one thread's.
// What bounds it  memory: ReLU moves 2 elements an element forward and 3 backward, leaky ReLU 2 and a bit both ways: x
//                 need not be kept.
// A bit, or a byte  leaky ReLU's forward and backward move 16.25 bytes an element of float32 with a bit for the sign, and 18
//                 with a byte; of 16 bits 8.25 and 10. A byte stays where the sign must lie as the element does: under
//                 torch.func's transforms, which give tensors a dimension more, and where x is neither contiguous nor
//                 channels_last.
// What is next    nothing here: to move less, this must become the epilogue of the kernel that makes x.
// What is counted  by the simulator; tools/kernel_notes.py writes it here, and says how to read it
//                              x     dy   positive   sectors   at least
//   LeNet C3    forward     1.00                        11.0       11.0
//   LeNet C3    backward           1.00       2.00      11.0       11.0
//   ResNet-20   forward     1.00                        11.0       11.0
//   ResNet-20   backward           1.00       2.00      11.0       11.0
#include "kernels/elementwise.h"
#include "kernels/leaky_relu.h"
#include "kernels/plan.h"

namespace convlab {

template <class A> struct LeakyRelu {
  A slope;
  __device__ A operator()(A x) const { return x > A(0) ? x : x * slope; }
  __device__ bool kept(A x) const { return x > A(0); }
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

namespace {

constexpr int kByte = 8;  // elements

// Elements [0, elements) of which a byte holds eight bits: vectors of n, side by side in the lanes of a warp, and the last
// few elements, which one thread makes.
struct PiecesOfBits {
  long long elements;

  __device__ __forceinline__ long long in_vectors() const { return elements / kByte * kByte; }
  template <int n> __device__ __forceinline__ bool has_vector(int k) const { return piece(k) * n < in_vectors(); }
  template <int n> __device__ __forceinline__ bool has_the_rest(int k) const { return piece(k) * n == in_vectors(); }
};

// Each lane's n bits, the first the lowest, gathered in the first lane of those that share a byte
template <int n> __device__ __forceinline__ unsigned gathered(unsigned bits) {
#pragma unroll
  for (int lanes = 1; lanes * n < kByte; lanes *= 2) bits |= __shfl_down_sync(0xffffffffu, bits, lanes) << lanes * n;
  return bits;
}

// x [elements] -> y [elements], and x > 0, bits [elements / 8], the first of a byte's the lowest.
// grid ceil(elements / 512 n)
template <int n, class T>
__global__ void __launch_bounds__(kElementThreads)
    forward_bits_kernel(LeakyRelu<acc_t<T>> f, PiecesOfBits p, const T* x, T* y, unsigned char* bits) {
  using A = acc_t<T>;
  Vector<T, n> v[kTogether];
#pragma unroll
  for (int k = 0; k < kTogether; k++)
    if (p.has_vector<n>(k)) v[k] = load_vector<n>(x + piece(k) * n);
#pragma unroll
  for (int k = 0; k < kTogether; k++) {
    const long long i = piece(k) * n;
    unsigned positive = 0;
    if (p.has_vector<n>(k)) {
#pragma unroll
      for (int e = 0; e < n; e++) {
        const A value = A(v[k].at[e]);
        positive |= f.kept(value) ? 1u << e : 0;
        v[k].at[e] = T(f(value));
      }
      store_vector(y + i, v[k]);
    } else if (p.has_the_rest<n>(k)) {
#pragma unroll 1
      for (int e = 0; i + e < p.elements; e++) {
        const A value = A(x[i + e]);
        positive |= f.kept(value) ? 1u << e : 0;
        y[i + e] = T(f(value));
      }
    }
    positive = gathered<n>(positive);
    if (i < p.elements && i % kByte == 0) bits[i / kByte] = (unsigned char)(positive);
  }
}

// dy [elements], bits [elements / 8] -> dx [elements].  grid ceil(elements / 512 n)
template <int n, class T>
__global__ void __launch_bounds__(kElementThreads)
    backward_bits_kernel(LeakyReluBackward<acc_t<T>> f, PiecesOfBits p, const T* dy, const unsigned char* bits, T* dx) {
  using A = acc_t<T>;
  Vector<T, n> v[kTogether];
  unsigned positive[kTogether];
#pragma unroll
  for (int k = 0; k < kTogether; k++) {
    const long long i = piece(k) * n;
    if (i < p.elements) positive[k] = bits[i / kByte];
    if (p.has_vector<n>(k)) v[k] = load_vector<n>(dy + i);
  }
#pragma unroll
  for (int k = 0; k < kTogether; k++) {
    const long long i = piece(k) * n;
    if (p.has_vector<n>(k)) {
      positive[k] >>= i % kByte;
#pragma unroll
      for (int e = 0; e < n; e++) v[k].at[e] = T(f(A(v[k].at[e]), positive[k] >> e & 1));
      store_vector(dx + i, v[k]);
    } else if (p.has_the_rest<n>(k)) {
#pragma unroll 1
      for (int e = 0; i + e < p.elements; e++) dx[i + e] = T(f(A(dy[i + e]), positive[k] >> e & 1));
    }
  }
}

// Calls f with the widest vectors that tensors allow, as a constant, and the grid.
template <class T, class F> void in_pieces_of_bits(long long elements, const F& f, const void* a, const void* b) {
  constexpr int n = kWidestAccess / int(sizeof(T));
  const auto launch_it = [&](auto width) {
    f(width, blocks_for(ceil_div(elements, decltype(width)::value), kElementThreads * kTogether));
  };
  if (place(static_cast<const T*>(a), n) == 0 && place(static_cast<const T*>(b), n) == 0)
    launch_it(std::integral_constant<int, n>{});
  else launch_it(std::integral_constant<int, 1>{});
}

// An activation of T's sums, made with a slope or nothing
template <template <class> class F, class... Slope>
void forward(DType dtype, long long elements, const void* x, void* y, void* positive, Stream stream, Slope... slope) {
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    unary<T, bool>(F<acc_t<T>>{acc_t<T>(slope)...}, elements, x, y, positive, stream);
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

void leaky_relu_forward_bits(DType dtype, long long elements, double negative_slope, const void* x, void* y, void* bits,
                             Stream stream) {
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const auto launch_it = [&](auto width, dim3 grid) {
      launch(forward_bits_kernel<decltype(width)::value, T>, grid, dim3(kElementThreads), 0, stream,
             LeakyRelu<acc_t<T>>{acc_t<T>(negative_slope)}, PiecesOfBits{elements}, static_cast<const T*>(x),
             static_cast<T*>(y), static_cast<unsigned char*>(bits));
    };
    in_pieces_of_bits<T>(elements, launch_it, x, y);
  });
}
void leaky_relu_backward_bits(DType dtype, long long elements, double negative_slope, const void* dy, const void* bits,
                              void* dx, Stream stream) {
  dispatch(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const auto launch_it = [&](auto width, dim3 grid) {
      launch(backward_bits_kernel<decltype(width)::value, T>, grid, dim3(kElementThreads), 0, stream,
             LeakyReluBackward<acc_t<T>>{acc_t<T>(negative_slope)}, PiecesOfBits{elements}, static_cast<const T*>(dy),
             static_cast<const unsigned char*>(bits), static_cast<T*>(dx));
    };
    in_pieces_of_bits<T>(elements, launch_it, dy, dx);
  });
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
