// Stands in for <cuda_runtime.h> when a C++20 compiler builds the kernels for the host: the part of CUDA C++ that
// csrc/kernels keeps to. Every CUDA thread is a fiber; see runner.h.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#include "simulator/atomics.h"
#include "simulator/intrinsics.h"
#include "simulator/runtime.h"
#include "simulator/types.h"
#include "simulator/warp.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __grid_constant__
#define __align__(n) alignas(n)

// The bound is kept as that many no-operations at the beginning of the kernel, where the launch counts them
// (kernel_info.cpp). sizeof: the attribute takes no named constant, but does take the size of an array type.
#define __launch_bounds__(threads, ...) __attribute__((patchable_function_entry(sizeof(char[threads]))))

#define threadIdx (::convlab::sim::builtins.thread)
#define blockIdx (::convlab::sim::builtins.block)
#define blockDim (::convlab::sim::builtins.block_size)
#define gridDim (::convlab::sim::builtins.grid_size)
inline constexpr int warpSize = 32;

inline void __syncthreads(CONVLAB_SITE) { convlab::sim::block_barrier(site); }
inline void __threadfence() {}        // blocks and threads see each other's writes in program order here;
inline void __threadfence_block() {}  // a missing fence does not show
inline void __trap(CONVLAB_SITE) { convlab::sim::trap(site); }

#define SHARED(T, name, dims)                                             \
  static const char name##_key_ = 0;                                      \
  using name##_array_ = T dims;                                           \
  auto& name = *static_cast<name##_array_*>(::convlab::sim::shared_array( \
      &name##_key_, sizeof(name##_array_), ::convlab::sim::kElement<T>, #name, std::source_location::current()))

#define DYNAMIC_SHARED(T, name) \
  T* const name =               \
      static_cast<T*>(::convlab::sim::dynamic_shared(::convlab::sim::kElement<T>, std::source_location::current()))

#define COPY_TO_SYMBOL(symbol, source, bytes, stream) \
  (void(stream), ::convlab::sim::copy_to_symbol(&(symbol), source, bytes))

namespace convlab {

template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t, A&&... arguments) {
  static_assert(sizeof...(P) == sizeof...(A), "launch: wrong number of kernel arguments");
  struct Call {
    void (*kernel)(P...);
    std::tuple<std::decay_t<P>...> arguments;
  } call{kernel, {static_cast<P>(std::forward<A>(arguments))...}};
  const auto run_kernel = [](void* c) { std::apply(static_cast<Call*>(c)->kernel, static_cast<Call*>(c)->arguments); };
  sim::run({reinterpret_cast<const void*>(kernel), grid, block, shared_bytes, run_kernel, &call, sizeof call});
}

}  // namespace convlab
