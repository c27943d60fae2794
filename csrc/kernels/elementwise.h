// Element by element over tensors that lie alike: unary (in -> out, and what is kept of it), binary (a, b -> out).
//
// A thread makes twice 16 bytes, loaded and stored in one instruction each, both loads before the first store. Tensors
// may start anywhere: as long as they all lie the same way to the multiples of 16 bytes, single threads make the few
// elements before the first of these and behind the last; otherwise every thread makes two elements. The output may be
// the input.
#pragma once
#include <type_traits>

#include "device/vector.h"
#include "dtype.h"
#include "geometry/conv2d.h"

namespace convlab {

constexpr int kElementThreads = 256, kTogether = 2;

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
  return ((long long)blockIdx.x * kTogether + k) * kElementThreads + threadIdx.x;
}

// in [elements] -> out [elements], and f.kept(in) [elements] unless `kept` is null.  grid ceil(pieces / 512)
template <int n, class T, class U, class F>
__global__ void __launch_bounds__(kElementThreads) unary_kernel(F f, Pieces p, const T* in, T* out, U* kept) {
  using A = acc_t<T>;
  constexpr bool kKeeps = requires(A v) { f.kept(v); };
  Vector<T, n> vectors[kTogether];
#pragma unroll
  for (int k = 0; k < kTogether; k++)
    if (piece(k) < p.vectors<n>()) vectors[k] = load_vector<n>(in + p.head + piece(k) * n);
#pragma unroll
  for (int k = 0; k < kTogether; k++) {
    if (piece(k) < p.vectors<n>()) {
      const long long j = p.head + piece(k) * n;
      Vector<U, n> keep;
      for (int e = 0; e < n; e++) {
        const A v = A(vectors[k].at[e]);
        if constexpr (kKeeps) keep.at[e] = f.kept(v);
        vectors[k].at[e] = T(f(v));
      }
      store_vector(out + j, vectors[k]);
      if (kKeeps && kept) store_vector(kept + j, keep);
    } else if (piece(k) < p.count<n>()) {
      const long long j = p.single<n>(piece(k));
      const A v = A(in[j]);
      out[j] = T(f(v));
      if constexpr (kKeeps)
        if (kept) kept[j] = f.kept(v);
    }
  }
}

// a, b [elements] -> out [elements].  grid ceil(pieces / 512)
template <int n, class T, class U, class F>
__global__ void __launch_bounds__(kElementThreads) binary_kernel(F f, Pieces p, const T* a, const U* b, T* out) {
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

template <class T, class U, class F>
void unary(F f, long long elements, const void* in, void* out, void* kept_or_null, cudaStream_t stream) {
  const T* x = static_cast<const T*>(in);
  T* y = static_cast<T*>(out);
  U* kept = static_cast<U*>(kept_or_null);
  const auto launch_it = [&](auto width, Pieces pieces) {
    constexpr int n = decltype(width)::value;
    launch(unary_kernel<n, T, U, F>, blocks_for(pieces.count<n>(), kElementThreads * kTogether), dim3(kElementThreads),
           0, stream, f, pieces, x, y, kept);
  };
  in_pieces(elements, launch_it, x, y, kept);
}

template <class T, class U, class F>
void binary(F f, long long elements, const void* a, const void* b, void* out, cudaStream_t stream) {
  const T* x = static_cast<const T*>(a);
  const U* y = static_cast<const U*>(b);
  T* z = static_cast<T*>(out);
  const auto launch_it = [&](auto width, Pieces pieces) {
    constexpr int n = decltype(width)::value;
    launch(binary_kernel<n, T, U, F>, blocks_for(pieces.count<n>(), kElementThreads * kTogether), dim3(kElementThreads),
           0, stream, f, pieces, x, y, z);
  };
  in_pieces(elements, launch_it, x, y, z);
}

}  // namespace convlab
