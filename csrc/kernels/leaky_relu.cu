// Leaky ReLU and ReLU, forward and backward, element by element. The output may be the input.
//
//   leaky ReLU   y = x > 0 ? x : x slope         dx = x > 0 ? dy : dy slope
//   ReLU         y = x > 0 ? x : 0, NaN stays    dx = y <= 0 ? 0 : dy
//
// ReLU is not leaky ReLU with slope 0: -inf times 0 is NaN.
//
// What it does    one thread an element, coalesced.
// What bounds it  memory: 2 elements moved a thread forward, 3 backward.
// What is next    16-byte loads and stores: a quarter of the memory instructions in float32.
#include "../device/device.h"
#include "launchers.h"

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

// in [elements] -> out [elements].  grid ceil(elements / 256)
template <class T, class F> __global__ void __launch_bounds__(kThreads) unary_kernel(F f, long long elements, const T* in, T* out) {
  const long long i = (long long)blockIdx.x * kThreads + threadIdx.x;
  if (i < elements) out[i] = T(f(acc_t<T>(in[i])));
}

// a, b [elements] -> out [elements].  grid ceil(elements / 256)
template <class T, class F> __global__ void __launch_bounds__(kThreads) binary_kernel(F f, long long elements, const T* a, const T* b, T* out) {
  const long long i = (long long)blockIdx.x * kThreads + threadIdx.x;
  if (i < elements) out[i] = T(f(acc_t<T>(a[i]), acc_t<T>(b[i])));
}

template <class T, class F> void unary(F f, long long elements, const void* in, void* out, Stream stream) {
  launch(unary_kernel<T, F>, blocks_for(elements, kThreads), dim3(kThreads), 0, stream, f, elements, static_cast<const T*>(in), static_cast<T*>(out));
}

template <class T, class F> void binary(F f, long long elements, const void* a, const void* b, void* out, Stream stream) {
  launch(binary_kernel<T, F>, blocks_for(elements, kThreads), dim3(kThreads), 0, stream, f, elements, static_cast<const T*>(a), static_cast<const T*>(b),
         static_cast<T*>(out));
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
