// A kernel of the CPU is a function for each instruction set and element type:
//
//   scale.h            CONVLAB_KERNEL(scale, void(double by, const void* x, void* y, int64_t begin, int64_t end));
//   scale.kernel.cpp   template <class T> void scale(double by, const T* x, T* y, int64_t begin, int64_t end) { ... }
//                      CONVLAB_DEFINE(scale, scale)
//   scale.cpp          kernels::scale.of(dtype)(2.0, x, y, 0, n);
//
// The build compiles each *.kernel.cpp once for each instruction set, with CONVLAB_ISA for its name, and that is the
// namespace of all it has: a function that two sets share would be linked once, with the instructions of one of them.
// What a set has of a kernel is data, put together by the linker. So a kernel that one set lacks does not link, and no
// code of a set runs before it is chosen. Torch-free, and for kernels as well.
#pragma once
#include <cstdint>

#include "cpu/instruction_sets.h"

namespace convlab {

template <class Signature> struct ByType {
  Signature* functions[4];  // by DType
};

template <class Signature> struct Kernel {
  using Functions = ByType<Signature>;
  const Functions* by_set[kSets];
  Signature* of(DType dtype) const { return by_set[set_in_use()]->functions[int(dtype)]; }
};

#define CONVLAB_DECLARE_IN(set, name, ...)        \
  namespace set {                                 \
  extern const ByType<__VA_ARGS__> name##_kernel; \
  }
#define CONVLAB_ADDRESS_IN(set, name, ...) &set::name##_kernel,

// In namespace convlab
#define CONVLAB_KERNEL(name, ...)                                                   \
  CONVLAB_EACH_SET(CONVLAB_DECLARE_IN, name, __VA_ARGS__)                           \
  namespace kernels {                                                               \
  constexpr Kernel<__VA_ARGS__> name{{CONVLAB_EACH_SET(CONVLAB_ADDRESS_IN, name)}}; \
  }                                                                                 \
  static_assert(true)

#if defined(CONVLAB_ISA)
namespace CONVLAB_ISA {

// f with its pointers to elements as void*
template <auto f, class Signature> struct Untyped;
template <auto f, class R, class... Arguments> struct Untyped<f, R(Arguments...)> {
  static R call(Arguments... arguments) { return typed(f, arguments...); }

 private:
  template <class... Types> [[gnu::always_inline]] static R typed(R (*function)(Types...), Arguments... arguments) {
    return function(static_cast<Types>(arguments)...);
  }
};

template <auto... f, class Signature> constexpr ByType<Signature> untyped_of(const Kernel<Signature>&) {
  return {{&Untyped<f, Signature>::call...}};
}

// At file scope: f<T> is the kernel for elements of type T
#define CONVLAB_DEFINE(name, f) CONVLAB_DEFINE_FOR(name, f<float>, f<double>, f<float16>, f<bfloat16>)
#define CONVLAB_DEFINE_FOR(name, ...)                                         \
  namespace convlab::CONVLAB_ISA {                                            \
  constinit const decltype(convlab::kernels::name)::Functions name##_kernel = \
      untyped_of<__VA_ARGS__>(convlab::kernels::name);                        \
  }

}  // namespace CONVLAB_ISA
#endif

}  // namespace convlab
