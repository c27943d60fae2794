// What the current GPU can do.
#pragma once
#include "device/device.h"

namespace convlab {

// The major number of its compute capability. The simulator has everything that kernels may use.
inline int capability_major() {
#if defined(__CUDACC__)
  int device = 0, major = 0;
  check_cuda(cudaGetDevice(&device), "the current device");
  check_cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "its compute capability");
  return major;
#else
  return 9;
#endif
}

}  // namespace convlab
