// Taking turns at __constant__ memory. A symbol is one for each device, whatever the stream: without turns, the copy of
// one stream would overwrite what a kernel of another still reads.
//
//   __constant__ float filters[n];
//   ...
//   const ConstantMemoryTurn turn(stream, who);      // to the end of the scope
//   COPY_TO_SYMBOL(filters, source, bytes, stream);
//   launch(kernel, ...);                             // as many copies and launches as it takes
//
// The host never waits for the GPU: a turn holds a lock while it enqueues, and the streams wait for each other through
// an event behind the last launch of the turn before. A captured graph could not keep this up: a replay enqueues its
// copies and kernels without asking anybody. So no turn is given to a stream that is being captured:
// std::runtime_error, who() and the reason.
#pragma once
#include <map>
#include <mutex>

#include "device/device.h"

namespace convlab {

inline std::mutex& constant_memory_mutex() {
  static std::mutex mutex;
  return mutex;
}

#if defined(__CUDACC__)

class ConstantMemoryTurn {
 public:
  ConstantMemoryTurn(cudaStream_t stream, std::string (*who)())
      : stream_(stream), lock_(not_captured(stream, who)), last_reader_(event_of_device()) {
    check_cuda(cudaStreamWaitEvent(stream_, last_reader_, 0), "wait for constant memory");
  }
  // If this fails, so does everything after it.
  ~ConstantMemoryTurn() { static_cast<void>(cudaEventRecord(last_reader_, stream_)); }
  ConstantMemoryTurn(const ConstantMemoryTurn&) = delete;

 private:
  static std::mutex& not_captured(cudaStream_t stream, std::string (*who)()) {
    cudaStreamCaptureStatus status;
    check_cuda(cudaStreamIsCapturing(stream, &status), "state of a stream");
    if (status != cudaStreamCaptureStatusNone)
      throw std::runtime_error(
          who() +
          " cannot be captured into a CUDA graph: it keeps data in constant memory, of which a device has one for all "
          "streams, and a replayed graph would overwrite it while kernels of other streams read it");
    return constant_memory_mutex();
  }

  static cudaEvent_t event_of_device() {
    static std::map<int, cudaEvent_t> events;  // guarded by the lock, and kept for good
    int device = 0;
    check_cuda(cudaGetDevice(&device), "current device");
    cudaEvent_t& event = events[device];
    if (!event) check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "event for constant memory");
    return event;
  }

  cudaStream_t stream_;
  std::unique_lock<std::mutex> lock_;
  cudaEvent_t last_reader_;
};

#else

// A simulated launch is over when it returns, so the lock is all it takes.
class ConstantMemoryTurn {
 public:
  ConstantMemoryTurn(cudaStream_t, std::string (*)()) : lock_(constant_memory_mutex()) {}

 private:
  std::lock_guard<std::mutex> lock_;
};

#endif

}  // namespace convlab
