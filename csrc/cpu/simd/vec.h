// Vectors of floats or doubles, as wide as this instruction set's registers, and what the kernels do with them beside
// arithmetic. The compiler's own vector types: the same text for AVX-512, AVX2, SSE2 and NEON. Sums contract to fused
// multiply-adds where the machine has them.
//
// A kernel's file is compiled once for each instruction set, in a namespace of its own (CONVLAB_ISA), and must not emit
// an inline function of another namespace: the linker would keep one copy for all machines. So: of the standard library
// only what emits none, <type_traits> and <utility>.
#pragma once
#include <type_traits>
#include <utility>

#if defined(__AVX512F__) || defined(__F16C__)
#include <immintrin.h>
#endif

#include "cpu/instruction_sets.h"
#include "cpu/workspace.h"

namespace convlab::CONVLAB_ISA {

constexpr int kVectorBytes = kSet.vector_bytes, kTilePixels = kSet.tile_pixels, kTileVectors = kSet.tile_vectors,
              kMostVectors = kSet.most_vectors;
constexpr bool kManyRegisters = kSet.many_registers();
// Steps of a loop that multiplies, where sums fill sixteen registers: four steps at once take 80 to 91 instructions for 48
// multiply-adds, and four single ones 92 to 104. That is 1.1 times as fast where the core's other thread is busy. It needs
// multiply-adds that GCC leaves as they are: add_product.
#if defined(__FMA__) && !defined(__AVX512F__)
constexpr int kSteps = 4;
#else
constexpr int kSteps = 1;
#endif

template <int... I> using indices = std::integer_sequence<int, I...>;
template <int N> using indices_to = std::make_integer_sequence<int, N>;

template <class A> struct vector_of {
  typedef A type __attribute__((vector_size(kVectorBytes)));
  typedef A in_memory __attribute__((vector_size(kVectorBytes), aligned(alignof(A)), may_alias));
};
template <class A> using Vec = typename vector_of<A>::type;
template <class A> constexpr int kLanes = kVectorBytes / int(sizeof(A));

template <class A> CONVLAB_INLINE Vec<A> load(const A* p) {
  return *reinterpret_cast<const typename vector_of<A>::in_memory*>(p);
}
template <class A> CONVLAB_INLINE void store(A* p, Vec<A> v) {
  *reinterpret_cast<typename vector_of<A>::in_memory*>(p) = v;
}
template <class A> CONVLAB_INLINE Vec<A> broadcast(A a) { return a - Vec<A>{}; }

// p[0] and p[1] in turns: one instruction where the machine has it
template <class A> CONVLAB_INLINE Vec<A> broadcast_pair(const A* p) {
  if constexpr (sizeof(A) == sizeof(float)) {
    int64_t bits;
    __builtin_memcpy(&bits, p, sizeof bits);
    return (Vec<A>)(bits + Vec<int64_t>{});
  }
#if defined(__AVX512F__)
  CONVLAB_TOUCHES(p, 2 * sizeof(A));
  return (Vec<A>)_mm512_maskz_broadcast_f32x4(0xffff, _mm_loadu_ps(reinterpret_cast<const float*>(p)));
#endif
  return [&]<int... I>(indices<I...>)
             __attribute__((always_inline)) { return Vec<A>{p[I % 2]...}; }(indices_to<kLanes<A>>());
}

// Keeps an address in one register, and does not keep its neighbours' in others. (An element of an array as the operand
// would put the array into memory: so it is a copy, here and below.)
template <class T> CONVLAB_INLINE void keep(T*& p) {
  T* copy = p;
  asm("" : "+r"(copy));
  p = copy;
}

CONVLAB_INLINE void keep(int64_t& index) { asm("" : "+r"(index)); }

// Keeps v in a register: loading it again for every multiply-add would take more of the load ports than there is
template <class V> CONVLAB_INLINE void keep(V& v) {
  V copy = v;
#if defined(__x86_64__)
  asm("" : "+v"(copy));
#elif defined(__aarch64__)
  asm("" : "+w"(copy));
#endif
  v = copy;
}

// sum += a * b, in the sum's register and from registers: in a loop that has all sixteen in use, GCC reads operands from
// memory again for each multiply-add, or moves sums about
template <class A> CONVLAB_INLINE void add_product(Vec<A>& sum, const Vec<A>& a, const Vec<A>& b) {
  if constexpr (kSteps == 1) sum += a * b;
  else {
    Vec<A> copy = sum;
    if constexpr (sizeof(A) == sizeof(float)) asm("vfmadd231ps %2, %1, %0" : "+x"(copy) : "x"(a), "x"(b));
    else asm("vfmadd231pd %2, %1, %0" : "+x"(copy) : "x"(a), "x"(b));
    sum = copy;
  }
}

// v in the lanes that the mask has, zero in the others. Kept in a register first: otherwise compilers read v from memory
// under the mask, and the read waits for the mask.
template <class V, class Mask> CONVLAB_INLINE V only_where(Mask mask, V v) {
  keep(v);
  return mask ? v : V{};
}

// v from 0 to `most`, NaN stays: these are the machine's maximum and minimum, which give their second operand then
template <class V> CONVLAB_INLINE V clamped(V v, V most) {
  const V least = V{} > v ? V{} : v;
  return most < least ? most : least;
}

}  // namespace convlab::CONVLAB_ISA

#include "cpu/simd/half.h"

namespace convlab::CONVLAB_ISA {

// From and to memory of another type: float16 and bfloat16 are computed as floats.
template <class A, class T> CONVLAB_INLINE Vec<A> load_as(const T* p) {
  if constexpr (sizeof(A) == sizeof(T)) return load<A>(p);
  else return load_half(p);
}
template <class A, class T> CONVLAB_INLINE void store_as(T* p, Vec<A> v) {
  if constexpr (sizeof(A) == sizeof(T)) store<A>(p, v);
  else store_half(p, v);
}

// A few elements, fewer than `least` * 2: their first and their last, which may be some of the first again
template <int least, class T> CONVLAB_INLINE void copy_ends(const T* from, int count, T* to) {
  if constexpr (least > 0) {
    if (count < least) return copy_ends<least / 2>(from, count, to);
    T first[least], last[least];
    __builtin_memcpy(first, from, sizeof first), __builtin_memcpy(last, from + count - least, sizeof last);
    __builtin_memcpy(to, first, sizeof first), __builtin_memcpy(to + count - least, last, sizeof last);
  }
}

// Less than a vector; kept out of line, for the compiler's sake
template <int L, class T> [[gnu::noinline]] void copy_some(const T* from, int count, T* to) {
  copy_ends<L / 2>(from, count, to);
}

#if defined(__AVX2__)
constexpr int kFirst[] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};  // lanes of 32 bits
#endif

// The first `count` lanes; those past it are zero, or are not written.
template <class A, class T> CONVLAB_INLINE Vec<A> load_some(const T* p, int count) {
  if (count >= kLanes<A>) return load_as<A>(p);
  if constexpr (sizeof(A) == sizeof(T)) {
#if defined(__AVX512F__)
    if constexpr (sizeof(A) == sizeof(float)) {
      CONVLAB_TOUCHES(p, count * sizeof(T));
      return (Vec<A>)_mm512_maskz_loadu_ps(__mmask16((1u << count) - 1), p);
    }
#elif defined(__AVX2__)
    CONVLAB_TOUCHES(p, count * sizeof(T));
    const auto lanes = reinterpret_cast<const __m256i*>(kFirst + 8 - count * int(sizeof(T) / sizeof(int)));
    if constexpr (sizeof(A) == sizeof(float)) return (Vec<A>)_mm256_maskload_ps(p, _mm256_loadu_si256(lanes));
    else return (Vec<A>)_mm256_maskload_pd(p, _mm256_loadu_si256(lanes));
#endif
  }
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 2) {
    CONVLAB_TOUCHES(p, count * sizeof(T));
    const HalfBits bits = (HalfBits)_mm256_maskz_loadu_epi16(__mmask16((1u << count) - 1), p);
    return load_half(reinterpret_cast<const T*>(&bits));
  }
#endif
  T lanes[kLanes<A>] = {};
  copy_some<kLanes<A>>(p, count, lanes);
  return load_as<A>(lanes);
}
template <class A, class T> CONVLAB_INLINE void store_some(T* p, Vec<A> v, int count) {
  if (count >= kLanes<A>) return store_as<A>(p, v);
  if constexpr (sizeof(A) == sizeof(T)) {
#if defined(__AVX512F__)
    if constexpr (sizeof(A) == sizeof(float)) {
      CONVLAB_TOUCHES(p, count * sizeof(T));
      return _mm512_mask_storeu_ps(p, __mmask16((1u << count) - 1), (__m512)v);
    }
#endif
  }
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 2) {
    HalfBits bits;
    store_half(reinterpret_cast<T*>(&bits), v);
    CONVLAB_TOUCHES(p, count * sizeof(T));
    return _mm256_mask_storeu_epi16(p, __mmask16((1u << count) - 1), (__m256i)bits);
  }
#endif
  T lanes[kLanes<A>];  // AVX2's store with a mask takes longer than this
  store_as<A>(lanes, v);
  copy_some<kLanes<A>>(lanes, count, p);
}

#if defined(__AVX512F__)
CONVLAB_INLINE uint32_t lane_mask(int first, int end) { return (1u << end) - (1u << first); }
#elif defined(__AVX2__)
template <class A> CONVLAB_INLINE __m256i lane_mask(int first, int end) {
  const auto below = [](int lane) { return (const __m256i*)(kFirst + 8 - lane * int(sizeof(A) / sizeof(int))); };
  return _mm256_andnot_si256(_mm256_loadu_si256(below(first)), _mm256_loadu_si256(below(end)));
}
#endif

// The lanes [first, end), the first of them at p; the others are zero, or are not written. Without calls, which would take
// a tile's sums out of its registers.
template <class A> CONVLAB_INLINE Vec<A> load_part(const A* p, int first, int end) {
  if (end - first == kLanes<A>) return load<A>(p);
  CONVLAB_TOUCHES(p, (end - first) * sizeof(A));
#if defined(__AVX512F__)
  if constexpr (sizeof(A) == sizeof(float)) return (Vec<A>)_mm512_maskz_loadu_ps(lane_mask(first, end), p - first);
  else return (Vec<A>)_mm512_maskz_loadu_pd(lane_mask(first, end), p - first);
#elif defined(__AVX2__)
  if constexpr (sizeof(A) == sizeof(float)) return (Vec<A>)_mm256_maskload_ps(p - first, lane_mask<A>(first, end));
  else return (Vec<A>)_mm256_maskload_pd(p - first, lane_mask<A>(first, end));
#else
  Vec<A> v{};
#pragma GCC unroll 4
  for (int l = 0; l < kLanes<A>; l++)
    if (l >= first && l < end) v[l] = p[l - first];
  return v;
#endif
}
template <class A> CONVLAB_INLINE void store_part(A* p, Vec<A> v, int first, int end) {
  if (end - first == kLanes<A>) return store<A>(p, v);
  CONVLAB_TOUCHES(p, (end - first) * sizeof(A));
#if defined(__AVX512F__)
  if constexpr (sizeof(A) == sizeof(float)) _mm512_mask_storeu_ps(p - first, lane_mask(first, end), (__m512)v);
  else _mm512_mask_storeu_pd(p - first, lane_mask(first, end), (__m512d)v);
#elif defined(__AVX2__)
  if constexpr (sizeof(A) == sizeof(float)) _mm256_maskstore_ps(p - first, lane_mask<A>(first, end), (__m256)v);
  else _mm256_maskstore_pd(p - first, lane_mask<A>(first, end), (__m256d)v);
#else
#pragma GCC unroll 4
  for (int l = 0; l < kLanes<A>; l++)
    if (l >= first && l < end) p[l - first] = v[l];
#endif
}

// Neighbouring elements. The last vector begins in the one before, if there is one.
template <class A, class T> CONVLAB_INLINE void copy_row(const T* from, int count, A* to) {
  constexpr int L = kLanes<A>;
  int i = 0;
  for (; i + L <= count; i += L) store<A>(to + i, load_as<A>(from + i));
  if (i && i < count) store<A>(to + count - L, load_as<A>(from + count - L));
  else
    for (; i < count; i++) to[i] = A(from[i]);
}

// Sums of floats lose a bit of accuracy with every doubling of their length: after about so many terms a chunk is put
// aside.
constexpr int64_t kChunk = 256;

// Sums of so many terms take long enough for the lines they will be written to, asked for beforehand, to arrive.
constexpr int64_t kTermsToPrefetch = 48;

// f(n), for 1 <= n <= N, where f takes a number that the compiler knows and returns a function of that size
template <int N, class F> CONVLAB_INLINE auto of_size(int n, F f) {
  return [&]<int... I>(indices<I...>) __attribute__((always_inline)) {
    static constexpr decltype(f(std::integral_constant<int, 1>())) all[] = {
        F()(std::integral_constant<int, I + 1>())...};
    return all[n - 1];
  }(indices_to<N>());
}

// f(0), ..., f(N - 1), of numbers that the compiler knows
template <int N, class F> CONVLAB_INLINE void each_number(const F& f) {
  [&]<int... I>(indices<I...>)
      __attribute__((always_inline)) { (f(std::integral_constant<int, I>()), ...); }(indices_to<N>());
}

// Lane l of the result is lane from(l) of a and b, where b's lanes are counted on from a's.
template <class A, class From> CONVLAB_INLINE Vec<A> shuffle(Vec<A> a, Vec<A> b, From) {
  return [&]<int... I>(indices<I...>) __attribute__((always_inline)) {
#if __has_builtin(__builtin_shufflevector)
    return __builtin_shufflevector(a, b, From()(I)...);
#else
    return __builtin_shuffle(a, b, decltype(a < b){From()(I)...});
#endif
  }(indices_to<kLanes<A>>());
}

// The lanes of a and b alternately: of their lower halves (half = 0), or of their upper halves
template <class A, int half> CONVLAB_INLINE Vec<A> zip(Vec<A> a, Vec<A> b) {
  return shuffle<A>(a, b, [](int l) { return half * kLanes<A> / 2 + l / 2 + l % 2 * kLanes<A>; });
}

// The even (which = 0) or odd lanes of a and b
template <class A, int which> CONVLAB_INLINE Vec<A> unzip(Vec<A> a, Vec<A> b) {
  if constexpr (sizeof(A) == 4 && kLanes<A> == 8) {  // within halves first: two shuffles, where g++ takes three
    const Vec<A> halves = shuffle<A>(a, b, [](int l) { return l / 4 * 4 + l / 2 % 2 * 8 + l % 2 * 2 + which; });
    return shuffle<A>(halves, halves, [](int l) { return l / 4 * 2 + l / 2 % 2 * 4 + l % 2; });
  }
  return shuffle<A>(a, b, [](int l) { return 2 * l + which; });
}

// Blocks of step x step lanes change places across the diagonals of blocks twice as large; then larger ones.
template <class A, int step> CONVLAB_INLINE void exchange_blocks(Vec<A> (&rows)[kLanes<A>]) {
  constexpr int L = kLanes<A>;
  if constexpr (step < L) {
#pragma GCC unroll 16
    for (int i = 0; i < L; i++) {
      if (i & step) continue;
      const Vec<A> a = rows[i], b = rows[i + step];
      rows[i] = shuffle<A>(a, b, [](int l) { return l & step ? l - step + L : l; });
      rows[i + step] = shuffle<A>(a, b, [](int l) { return l & step ? l + L : l + step; });
    }
    exchange_blocks<A, 2 * step>(rows);
  }
}

// Four rows at a time, each quad of lanes: as exchange_blocks<A, 1> and <A, 2> do it, in fewer instructions
template <class A> CONVLAB_INLINE void transpose_quads(Vec<A> (&rows)[kLanes<A>]) {
  constexpr int L = kLanes<A>;
#pragma GCC unroll 4
  for (int q = 0; q < L; q += 4) {
    Vec<A> pairs[4];
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
      const Vec<A> a = rows[q + 2 * i], b = rows[q + 2 * i + 1];
      pairs[i] = shuffle<A>(a, b, [](int l) { return l / 4 * 4 + l % 4 / 2 + l % 2 * L; });
      pairs[2 + i] = shuffle<A>(a, b, [](int l) { return l / 4 * 4 + 2 + l % 4 / 2 + l % 2 * L; });
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
      const Vec<A> a = pairs[2 * i], b = pairs[2 * i + 1];
      rows[q + 2 * i] = shuffle<A>(a, b, [](int l) { return l / 4 * 4 + l % 2 + l % 4 / 2 * L; });
      rows[q + 2 * i + 1] = shuffle<A>(a, b, [](int l) { return l / 4 * 4 + 2 + l % 2 + l % 4 / 2 * L; });
    }
  }
}

// rows[i][j] <-> rows[j][i]. An instruction of AVX2 works on 16 bytes at a time, and few reach across: so first blocks of
// 16 bytes a row are transposed where they are, then they change places.
template <class A> CONVLAB_INLINE void transpose(Vec<A> (&rows)[kLanes<A>]) {
  constexpr int kPerBlock = 16 / sizeof(A);
  if constexpr (kPerBlock == 4) transpose_quads<A>(rows);
  exchange_blocks<A, kPerBlock == 4 ? 4 : 1>(rows);
}

}  // namespace convlab::CONVLAB_ISA
