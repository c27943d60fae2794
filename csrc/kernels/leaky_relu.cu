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
#include "kernels/elementwise.h"
#include "kernels/launchers.h"

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
