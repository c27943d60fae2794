#include "cuda/multiprocessors.h"

#include "device/device.h"

namespace convlab {

#if defined(__CUDACC__)
int multiprocessors(int device) {
  int count = 0;
  check_cuda(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "multiprocessors of a device");
  return count;
}
int capability(int device) {
  int major = 0, minor = 0;
  check_cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "a device's capability");
  check_cuda(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "a device's capability");
  return 10 * major + minor;
}
#else
int multiprocessors(int) { return sim::multiprocessors(); }
int capability(int) { return sim::capability(); }
#endif

}  // namespace convlab
