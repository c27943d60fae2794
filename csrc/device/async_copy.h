// Copies from device to shared memory that do not pass through registers (cp.async, sm_80 and later).
//
//   async_copy<16>(shared, global);        16, 8 or 4 bytes; both addresses multiples of that
//   async_copy<16>(shared, global, 0);     ... of which only the first n are read, the rest is zero
//   async_commit();                        closes a group
//   async_wait<1>();                       until at most one of this thread's groups is pending
//
// A copy is visible to its thread after the wait, and to the block after a barrier behind it.
#pragma once
#include "device/device.h"

namespace convlab {

#if defined(__CUDACC__)

template <int bytes, bool past_l1 = true>
__device__ __forceinline__ void async_copy(void* shared, const void* global, unsigned source_bytes = bytes) {
  static_assert(bytes == 4 || bytes == 8 || bytes == 16, "cp.async copies 4, 8 or 16 bytes");
  const unsigned to = unsigned(__cvta_generic_to_shared(shared));
  if constexpr (bytes == 16 && past_l1)  // .cg, which only this size may
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(source_bytes) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(global), "n"(bytes), "r"(source_bytes)
                 : "memory");
}

__device__ __forceinline__ void async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int pending> __device__ __forceinline__ void async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

#else

template <int bytes, bool past_l1 = true>
void async_copy(void* shared, const void* global, unsigned source_bytes = bytes, CONVLAB_SITE) {
  static_assert(bytes == 4 || bytes == 8 || bytes == 16, "cp.async copies 4, 8 or 16 bytes");
  sim::async_copy(shared, global, bytes, source_bytes, site);
}

inline void async_commit() { sim::async_commit(); }
template <int pending> void async_wait() { sim::async_wait(pending); }

#endif

}  // namespace convlab
