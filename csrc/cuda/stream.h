// Where the CUDA backend runs: the tensor's device for as long as the object lives, and torch's current stream on it.
// In the simulator there is one device and no stream: a launch returns when it is done.
#pragma once
#include <torch/csrc/stable/accelerator.h>

#include "host/tensors.h"
#include "kernels/launchers.h"

#if defined(CONVLAB_SIMULATED)

namespace convlab {

class CurrentStream {
 public:
  explicit CurrentStream(const Tensor&) {}
  operator Stream() const { return nullptr; }
};

}  // namespace convlab

#else

// In libtorch_cuda alone. Weak, so that the library also loads beside a CPU-only torch, where no CUDA tensor can exist.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream);

namespace convlab {

class CurrentStream {
 public:
  explicit CurrentStream(const Tensor& t) : guard_(t.get_device_index()) {
    CONVLAB_CHECK(aoti_torch_get_current_cuda_stream,
                  "convlab: a CUDA tensor, but torch's CUDA library is not loaded; reinstall torch with CUDA");
    void* stream = nullptr;
    CONVLAB_CHECK(aoti_torch_get_current_cuda_stream(t.get_device_index(), &stream) == AOTI_TORCH_SUCCESS,
                  "convlab: torch has no current stream for ", device_name(t));
    stream_ = static_cast<Stream>(stream);
  }
  operator Stream() const { return stream_; }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  Stream stream_;
};

}  // namespace convlab

#endif
