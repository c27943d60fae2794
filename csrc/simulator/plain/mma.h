// nvcuda::wmma: fragments of matrices that a warp holds together. Which lane holds which element is nobody's business
// but the implementation's: element_of and lane_of, so that few lanes load what they may have written themselves.
// Products are exact and summed in float32 in the order of k; the hardware's order differs.
#pragma once
#include "simulator/plain/cuda_bf16.h"
#include "simulator/plain/cuda_fp16.h"

namespace convlab::sim::plain {

void meet(void** lanes, uint32_t mask);
// Fails unless a matrix may lie there, with rows (or columns) of so many bytes.
void check_matrix(const char* function, const void* address, size_t row_bytes, Site site);
[[noreturn]] void not_rounded(const char* operand, float value);

}  // namespace convlab::sim::plain

namespace nvcuda::wmma {

struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
struct col_major;
enum layout_t { mem_row_major, mem_col_major };
namespace precision {
struct tf32;
}

template <class T> struct stored {
  using type = T;
};
template <> struct stored<precision::tf32> {
  using type = float;
};

template <class Use, int m, int n, int k, class T, class Layout = void> struct fragment {
  static constexpr int rows = std::is_same_v<Use, matrix_b> ? k : m, columns = std::is_same_v<Use, matrix_a> ? k : n;
  static constexpr int num_elements = rows * columns / 32;
  static constexpr bool by_column = std::is_same_v<Layout, col_major>;
  using element_type = T;
  using storage_element_type = typename stored<T>::type;
  storage_element_type x[num_elements];
};

inline float __float_to_tf32(float x) {
  const uint32_t bits = ::convlab::bits_of(x);
  if ((bits & 0x7f800000) == 0x7f800000) return x;
  return ::convlab::float_of((bits + 0x1000) & 0xffffe000);
}

template <class F> void fill_fragment(F& f, typename F::storage_element_type value) {
  for (auto& x : f.x) x = value;
}

// The number, row by row, of what is x[e] of a lane; and which lane has element i, as x[i / 32].
constexpr int element_of(int e, int lane) { return e * 32 + (5 * lane + 7 * e + 3) % 32; }
constexpr int lane_of(int i) { return 13 * (i % 32 + 64 * 7 - 7 * (i / 32) - 3) % 32; }  // 5 * 13 = 1 (mod 32)
static_assert(lane_of(element_of(0, 0)) == 0 && lane_of(element_of(7, 31)) == 31 && lane_of(element_of(15, 8)) == 8);

// Called by every lane, each of which moves its own elements: index(row, column) is where an element lies.
template <class F, class Move>
__attribute__((always_inline)) inline void each_element(F&, bool by_column, unsigned ldm, Move move) {
  const int lane = int(::convlab::sim::lane_id());
  for (int e = 0; e < F::num_elements; e++) {
    const int i = element_of(e, lane), row = i / F::columns, column = i % F::columns;
    move(e, by_column ? size_t(column) * ldm + row : size_t(row) * ldm + column);
  }
}

template <class F, class T>
__attribute__((always_inline)) inline void load(F& f, const T* p, unsigned ldm, bool by_column,
                                                ::convlab::sim::Site site) {
  static_assert(std::is_same_v<T, typename F::storage_element_type>,
                "load_matrix_sync: the memory holds another type than the fragment");
  ::convlab::sim::plain::check_matrix("wmma::load_matrix_sync", p, ldm * sizeof(T), site);
  ::convlab::sim::warp_collective("wmma::load_matrix_sync", ::convlab::sim::plain::meet, ~0u, nullptr, site);
  each_element(f, by_column, ldm, [&](int e, size_t at) { f.x[e] = p[at]; });
}
template <class Use, int m, int n, int k, class T, class Layout, class M>
__attribute__((always_inline)) inline void load_matrix_sync(fragment<Use, m, n, k, T, Layout>& f, const M* p,
                                                            unsigned ldm, CONVLAB_SITE) {
  static_assert(!std::is_void_v<Layout>,
                "load_matrix_sync: an accumulator is loaded with its layout as the fourth argument");
  load(f, p, ldm, f.by_column, site);
}
template <int m, int n, int k, class T, class M>
__attribute__((always_inline)) inline void load_matrix_sync(fragment<accumulator, m, n, k, T>& f, const M* p,
                                                            unsigned ldm, layout_t layout, CONVLAB_SITE) {
  load(f, p, ldm, layout == mem_col_major, site);
}
template <int m, int n, int k, class T>
__attribute__((always_inline)) inline void store_matrix_sync(T* p, const fragment<accumulator, m, n, k, T>& f,
                                                             unsigned ldm, layout_t layout, CONVLAB_SITE) {
  ::convlab::sim::plain::check_matrix("wmma::store_matrix_sync", p, ldm * sizeof(T), site);
  ::convlab::sim::warp_collective("wmma::store_matrix_sync", ::convlab::sim::plain::meet, ~0u, nullptr, site);
  each_element(f, layout == mem_col_major, ldm, [&](int e, size_t at) { p[at] = f.x[e]; });
}

template <class D, class A, class B, class C> struct Operands {
  D* d;
  const A* a;
  const B* b;
  const C* c;

  // d = a b + c of all lanes. A function of the simulator's, which nobody needs to watch.
  __attribute__((no_sanitize("thread", "undefined"))) static void multiply(void** lanes, uint32_t mask) {
    ::convlab::sim::plain::meet(lanes, mask);
    using Sum = std::conditional_t<std::is_integral_v<typename C::element_type>, int, float>;
    constexpr int m = D::rows, n = D::columns, k = A::columns;
    const auto of = [&](int i) -> Operands& { return *static_cast<Operands*>(lanes[lane_of(i)]); };
    Sum a[m * k], b[k * n], sums[m * n];
    for (int i = 0; i < m * k; i++) a[i] = value<A>("A", of(i).a->x[i / 32]);
    for (int i = 0; i < k * n; i++) b[i] = value<B>("B", of(i).b->x[i / 32]);
    for (int i = 0; i < m * n; i++) {
      Sum sum = Sum(of(i).c->x[i / 32]);
      for (int j = 0; j < k; j++) sum += a[i / n * k + j] * b[j * n + i % n];
      sums[i] = sum;
    }
    for (int i = 0; i < m * n; i++) of(i).d->x[i / 32] = sums[i];
  }

  template <class F>
  __attribute__((no_sanitize("thread", "undefined"))) static auto value(const char* name,
                                                                        typename F::storage_element_type x) {
    if constexpr (std::is_integral_v<typename F::element_type>) return int(x);
    else {
      if constexpr (std::is_same_v<typename F::element_type, precision::tf32>)
        if (::convlab::bits_of(x) & 0x1fff) ::convlab::sim::plain::not_rounded(name, x);
      return float(x);
    }
  }
};

template <int m, int n, int k, class TD, class TA, class LA, class TB, class LB, class TC>
void mma_sync(fragment<accumulator, m, n, k, TD>& d, const fragment<matrix_a, m, n, k, TA, LA>& a,
              const fragment<matrix_b, m, n, k, TB, LB>& b, const fragment<accumulator, m, n, k, TC>& c, CONVLAB_SITE) {
  using All = Operands<fragment<accumulator, m, n, k, TD>, fragment<matrix_a, m, n, k, TA, LA>,
                       fragment<matrix_b, m, n, k, TB, LB>, fragment<accumulator, m, n, k, TC>>;
  All lane{&d, &a, &b, &c};
  ::convlab::sim::warp_collective("wmma::mma_sync", All::multiply, ~0u, &lane, site);
}

}  // namespace nvcuda::wmma
