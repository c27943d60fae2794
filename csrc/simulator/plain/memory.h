// The part of CUDA's host functions that launchers use: memory, symbols, errors, and streams and events, of which
// there is nothing to simulate: a launch is over when it returns. What is wrong throws Error rather than return a code
// that nobody looks at.
#pragma once
#include "simulator/runtime.h"

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorMemoryAllocation = 2 };
enum cudaMemcpyKind {
  cudaMemcpyHostToHost,
  cudaMemcpyHostToDevice,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice,
  cudaMemcpyDefault
};
enum { cudaCpuDeviceId = -1, cudaMemAttachGlobal = 1, cudaMemAttachHost = 2 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize, cudaFuncAttributePreferredSharedMemoryCarveout };
using cudaEvent_t = struct CUevent_st*;
struct cudaDeviceProp {
  char name[256] = "convlab's simulator";
  int major = 9, minor = 0, warpSize = 32, maxThreadsPerBlock = 1024, multiProcessorCount = 132;
  size_t totalGlobalMem = size_t(64) << 30, sharedMemPerBlock = 48 * 1024, sharedMemPerBlockOptin = 227 * 1024,
         totalConstMem = 64 * 1024;
};

namespace convlab::sim::plain {

void* allocate(size_t bytes, unsigned element_bytes, Site site);
void* allocate_managed(size_t bytes, unsigned element_bytes, Site site);
void release(void* p, Site site);
cudaError_t wait();  // for all kernels
void copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, Site site);
void set(void* to, int value, size_t bytes, Site site);
void copy_to_symbol(void* symbol, size_t symbol_bytes, const void* from, size_t bytes, size_t offset,
                    cudaMemcpyKind kind, Site site);
void copy_from_symbol(void* to, const void* symbol, size_t symbol_bytes, size_t bytes, size_t offset,
                      cudaMemcpyKind kind, Site site);
void allow_shared_bytes(const void* kernel, size_t bytes, Site site);

template <class T> constexpr unsigned bytes_of_one = sizeof(T);
template <> inline constexpr unsigned bytes_of_one<void> = 1;

}  // namespace convlab::sim::plain

template <class T> cudaError_t cudaMalloc(T** p, size_t bytes, CONVLAB_SITE) {
  *p = static_cast<T*>(convlab::sim::plain::allocate(bytes, convlab::sim::plain::bytes_of_one<T>, site));
  return cudaSuccess;
}
template <class T> cudaError_t cudaMallocManaged(T** p, size_t bytes, unsigned = cudaMemAttachGlobal, CONVLAB_SITE) {
  *p = static_cast<T*>(convlab::sim::plain::allocate_managed(bytes, convlab::sim::plain::bytes_of_one<T>, site));
  return cudaSuccess;
}
inline cudaError_t cudaMemPrefetchAsync(const void*, size_t, int, cudaStream_t = nullptr) { return cudaSuccess; }
inline cudaError_t cudaFree(void* p, CONVLAB_SITE) { return convlab::sim::plain::release(p, site), cudaSuccess; }
inline cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, CONVLAB_SITE) {
  return convlab::sim::plain::copy(to, from, bytes, kind, site), convlab::sim::plain::wait();
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                                   cudaStream_t = nullptr, CONVLAB_SITE) {
  return convlab::sim::plain::copy(to, from, bytes, kind, site), cudaSuccess;
}
inline cudaError_t cudaMemset(void* to, int value, size_t bytes, CONVLAB_SITE) {
  return convlab::sim::plain::set(to, value, bytes, site), cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t = nullptr, CONVLAB_SITE) {
  return convlab::sim::plain::set(to, value, bytes, site), cudaSuccess;
}
template <class T>
cudaError_t cudaMemcpyToSymbol(T& symbol, const void* from, size_t bytes, size_t offset = 0,
                               cudaMemcpyKind kind = cudaMemcpyHostToDevice, CONVLAB_SITE) {
  void* const to = const_cast<void*>(static_cast<const volatile void*>(&symbol));
  return convlab::sim::plain::copy_to_symbol(to, sizeof symbol, from, bytes, offset, kind, site), cudaSuccess;
}
template <class T>
cudaError_t cudaMemcpyToSymbolAsync(T& symbol, const void* from, size_t bytes, size_t offset, cudaMemcpyKind kind,
                                    cudaStream_t = nullptr, CONVLAB_SITE) {
  return cudaMemcpyToSymbol(symbol, from, bytes, offset, kind, site);
}
template <class T>
cudaError_t cudaMemcpyFromSymbol(void* to, const T& symbol, size_t bytes, size_t offset = 0,
                                 cudaMemcpyKind kind = cudaMemcpyDeviceToHost, CONVLAB_SITE) {
  return convlab::sim::plain::copy_from_symbol(to, &symbol, sizeof symbol, bytes, offset, kind, site), cudaSuccess;
}

template <class... P>
cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute attribute, int value, CONVLAB_SITE) {
  if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize)
    convlab::sim::plain::allow_shared_bytes(reinterpret_cast<const void*>(kernel), size_t(value), site);
  return cudaSuccess;
}

inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaPeekAtLastError() { return cudaSuccess; }
inline cudaError_t cudaDeviceSynchronize() { return convlab::sim::plain::wait(); }
inline cudaError_t cudaDeviceReset() { return convlab::sim::plain::wait(); }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) { return *p = {}, cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "invalid argument";
}
inline const char* cudaGetErrorName(cudaError_t error) {
  return error == cudaSuccess ? "cudaSuccess" : "cudaErrorInvalidValue";
}
inline cudaError_t cudaStreamCreate(cudaStream_t* stream) { return *stream = nullptr, cudaSuccess; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return convlab::sim::plain::wait(); }
inline cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaEventCreate(cudaEvent_t* event) { return *event = nullptr, cudaSuccess; }
inline cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t = nullptr) { return cudaSuccess; }
inline cudaError_t cudaEventSynchronize(cudaEvent_t) { return convlab::sim::plain::wait(); }
inline cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
inline cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t, cudaEvent_t) { return *ms = 0, cudaSuccess; }
