#include "cuda/multiprocessors.h"

#include "device/device.h"

namespace convlab {

#if defined(__CUDACC__)
int multiprocessors(int device) {
  int count = 0;
  check_cuda(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "multiprocessors of a device");
  return count;
}
#else
int multiprocessors(int) { return sim::multiprocessors(); }
#endif

}  // namespace convlab
