// CUDA C++ as the books write it, for the host: what a kernel file of one's own may use beyond the device language.
// Included before every such file, as nvcc includes its own. <<<>>> and __shared__ have no words in C++:
// convlab/testing/plain_cuda.py rewrites them, line by line, to CONVLAB_LAUNCH and CONVLAB_SHARED.
#pragma once
#include <climits>
#include <cstdio>
#include <cstdlib>

#include "simulator/cuda_on_host.h"
#include "simulator/plain/atomics.h"
#include "simulator/plain/memory.h"

// ---- shared memory ----

// A declaration `__shared__ float tile[16][17], sum;` is the members of a struct, of which C++ knows the types; each is
// a reference into the block's shared memory.
#define CONVLAB_SHARED(declared, name)                                                                          \
  static const char name##_key_ = 0;                                                                            \
  [[maybe_unused]] auto& name = *static_cast<decltype(declared::name)*>(::convlab::sim::shared_array(           \
      &name##_key_, sizeof(declared::name), ::convlab::sim::plain::element_of<decltype(declared::name)>, #name, \
      std::source_location::current()));
#define CONVLAB_DYNAMIC_SHARED(declared, name)                                                            \
  [[maybe_unused]] auto* const name =                                                                     \
      static_cast<std::remove_extent_t<decltype(declared::name)>*>(::convlab::sim::plain::dynamic_shared( \
          ::convlab::sim::plain::element_of<decltype(declared::name)>, std::source_location::current()));

// ---- launches ----

// kernel<T><<<grid, block, bytes, stream>>>(arguments) is CONVLAB_LAUNCH(kernel<T>)(grid, block, bytes,
// stream)(arguments). The first function gives the kernel, where its name alone says which; the second calls it, so that
// its arguments decide.
#define CONVLAB_LAUNCH(...)                                                                      \
  ::convlab::sim::plain::named(                                                                  \
      #__VA_ARGS__, [&](auto take) -> decltype(take(__VA_ARGS__)) { return take(__VA_ARGS__); }, \
      [&](auto... a) -> decltype(__VA_ARGS__(a...)) { return __VA_ARGS__(a...); })

namespace convlab::sim::plain {

template <class T> constexpr Element element_of = kElement<std::remove_cv_t<std::remove_all_extents_t<T>>>;

void* dynamic_shared(Element element, Site site);

struct Configuration {
  dim3 grid, block;
  size_t shared_bytes;
  Site site;
  const char* name;
};
// `name`: of a kernel that only its arguments tell, whose address is not its own. Throws Error.
void launch(const Launch& launch, Site site, const char* name);

template <class... P> struct Parameters {
  // Runs kernel(values), with a copy of them for the whole launch.
  template <class Kernel, class... A>
  static void launch_with(const void* address, Kernel kernel, const Configuration& c, A&&... arguments) {
    struct Call {
      Kernel kernel;
      std::tuple<std::decay_t<P>...> values;
    } call{kernel, std::tuple<std::decay_t<P>...>(std::forward<A>(arguments)...)};
    const auto run = [](void* v) { std::apply(static_cast<Call*>(v)->kernel, static_cast<Call*>(v)->values); };
    launch({address ? address : reinterpret_cast<const void*>(+run), c.grid, c.block, c.shared_bytes, run, &call,
            sizeof call},
           c.site, address ? nullptr : c.name);
  }
};

struct TheOne {  // of the kernels of a name
  template <class... P> auto operator()(void (*kernel)(P...)) const { return kernel; }
};

template <class Find, class Call> class Named {
 public:
  Named(const char* name, Find find, Call call) : name_(name), find_(find), call_(call) {}

  auto operator()(dim3 grid, dim3 block, size_t shared_bytes = 0, cudaStream_t = nullptr, CONVLAB_SITE) const {
    return [*this, c = Configuration{grid, block, shared_bytes, site, name_}]<class... A>(A&&... arguments) {
      if constexpr (std::is_invocable_v<const Find&, TheOne>) with(find_(TheOne()), c, std::forward<A>(arguments)...);
      else Parameters<A...>::launch_with(nullptr, call_, c, std::forward<A>(arguments)...);
    };
  }

 private:
  template <class... P, class... A> void with(void (*kernel)(P...), const Configuration& c, A&&... arguments) const {
    if constexpr (sizeof...(P) == sizeof...(A))
      Parameters<P...>::launch_with(reinterpret_cast<const void*>(kernel), kernel, c, std::forward<A>(arguments)...);
    else  // some have defaults
      Parameters<A...>::launch_with(reinterpret_cast<const void*>(kernel), call_, c, std::forward<A>(arguments)...);
  }

  const char* name_;
  Find find_;
  Call call_;
};
template <class Find, class Call> Named<Find, Call> named(const char* name, Find find, Call call) {
  return {name, find, call};
}

}  // namespace convlab::sim::plain

// ---- arithmetic ----

inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __powf(float x, float y) { return std::pow(x, y); }
inline float __sinf(float x) { return std::sin(x); }
inline float __cosf(float x) { return std::cos(x); }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1) : 0; }
inline float __frcp_rn(float x) { return 1 / x; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline int __mul24(int a, int b) { return a * b; }
inline int __float2int_rn(float x) { return int(std::nearbyint(x)); }
inline int __float2int_rz(float x) { return int(x); }
inline float __int2float_rn(int x) { return float(x); }

// As in CUDA, of two different types as well.
template <class A, class B>
  requires(std::is_arithmetic_v<A> && std::is_arithmetic_v<B> && !std::is_same_v<A, B>)
constexpr auto min(A a, B b) {
  using C = std::common_type_t<A, B>;
  return C(b) < C(a) ? C(b) : C(a);
}
template <class A, class B>
  requires(std::is_arithmetic_v<A> && std::is_arithmetic_v<B> && !std::is_same_v<A, B>)
constexpr auto max(A a, B b) {
  using C = std::common_type_t<A, B>;
  return C(a) < C(b) ? C(b) : C(a);
}

struct alignas(2) char2 {
  signed char x, y;
};
struct alignas(4) char4 {
  signed char x, y, z, w;
};
struct alignas(2) uchar2 {
  unsigned char x, y;
};
struct alignas(4) uchar4 {
  unsigned char x, y, z, w;
};
struct alignas(4) short2 {
  short x, y;
};
