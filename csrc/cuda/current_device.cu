#include "cuda/current_device.h"

#include <map>
#include <mutex>
#include <stdexcept>
#include <string>

#include "device/device.h"

namespace convlab {

#if defined(__CUDACC__)
// What to do about a library without code for the current GPU.
static std::string no_kernel_image() {
  int device = 0, major = 0, minor = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  const std::string arch = std::to_string(major) + "." + std::to_string(minor);
  return ": convlab was not compiled for compute capability " + arch + ", this GPU's: TORCH_CUDA_ARCH_LIST=" + arch +
         " CONVLAB_CUDA=1 pip install --no-build-isolation --force-reinstall --no-deps .";
}

void refuse_cuda_error(cudaError_t error, const char* what) {
  const bool no_image = error == cudaErrorNoKernelImageForDevice || error == cudaErrorUnsupportedPtxVersion;
  throw std::runtime_error(std::string("convlab: ") + what + ": " + cudaGetErrorString(error) +
                           (no_image ? no_kernel_image() : ""));
}

// Lets a kernel have so much dynamic shared memory on the current device: with its __shared__ arrays, it gets 48 KiB
// unasked. What is allowed only grows, because another thread may be about to launch it with more.
void allow_shared(const void* kernel, size_t bytes) {
  static std::mutex mutex;
  static std::map<std::pair<int, const void*>, size_t> allowed;
  int device = 0;
  check_cuda(cudaGetDevice(&device), "current device");
  const std::lock_guard<std::mutex> lock(mutex);
  size_t& most = allowed[{device, kernel}];
  if (bytes <= most) return;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)),
             "shared memory of a kernel");
  most = bytes;
}

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
