// The kernels as the host side of the CUDA backend sees them: plain pointers to contiguous NCHW tensors of one element
// type, and a stream. Every launcher is asynchronous, allocates nothing, and throws std::runtime_error if the launch
// fails.
#pragma once
#include "algorithms.h"
#include "dtype.h"
#include "geometry/avg_pool2d.h"
#include "geometry/by_channel.h"
#include "geometry/conv2d.h"
#include "geometry/ending.h"
#include "geometry/pool2d.h"
#include "kernels/plan.h"

struct CUstream_st;

namespace convlab {

using Stream = CUstream_st*;  // cudaStream_t, without CUDA's headers

// ---- convolution: x [N, C, H, W], w [K, C/groups, R, S], bias [K] or null, y and dy [N, K, P, Q] ----

// A rung's launchers. `db` [K] may be null; `workspace` has plan.workspace bytes.
using ConvForward = void(const Plan&, const Conv2d&, DType, const void* x, const void* w, const void* bias, void* y,
                         void* workspace, Stream);
using ConvDgrad = void(const Plan&, const Conv2d&, DType, const void* dy, const void* w, void* dx, void* workspace,
                       Stream);
using ConvWgrad = void(const Plan&, const Conv2d&, DType, const void* dy, const void* x, void* dw, void* db,
                       void* workspace, Stream);
// A forward, and what a block makes of it: y and winners [N, K, P, Q] of pool's windows. Where plan.epilogue has the ending.
using ConvBlock = void(const Plan&, const Conv2d&, const Ending&, const Pool2d&, DType, const void* x, const void* w,
                       const void* bias, void* y, void* winners_or_null, Stream);

// A rung's launchers, null for a pass that it does not have. conv2d_NAME.cu ends with one, which makes them known.
struct ConvKernels {
  ConvForward* forward;
  ConvDgrad* dgrad;
  ConvWgrad* wgrad;
  ConvBlock* block;

  ConvKernels(CudaRung& rung, ConvForward* forward, ConvDgrad* dgrad, ConvWgrad* wgrad, ConvBlock* block = nullptr)
      : forward(forward), dgrad(dgrad), wgrad(wgrad), block(block) {
    rung.run = this;
  }
  ConvKernels(const ConvKernels&) = delete;
};

// conv2d_bias_grad.cu: db [K] = sum of dy over n, p, q
void conv2d_bias_grad(const Conv2d&, DType, const void* dy, void* db, Stream);

// ---- max pooling: x and dx [images, H, W, channels], y, dy and offsets [images, P, Q, channels] ----
// channels: C where tensors lie channels_last; 1 in NCHW, where a plane is an image.
// offsets: the tap that won, r * S + s; uint8 where offsets_fit_a_byte(), int32 elsewhere.

// max_pool2d.cu
void max_pool2d_forward(const Pool2d&, int channels, DType, const void* x, void* y, void* offsets_or_null, Stream);
void max_pool2d_backward(const Pool2d&, int channels, DType, const void* dy, const void* offsets, void* dx, Stream);
void max_pool2d_gather(const Pool2d&, int channels, DType, const void* x, const void* offsets, void* y, Stream);
void max_pool2d_indices(const Pool2d&, int channels, const void* offsets, long long* indices, Stream);

// ---- average pooling: x and dx [images, H, W, channels], y and dy [images, P, Q, channels] ----

// avg_pool2d.cu
void avg_pool2d_forward(const AvgPool2d&, int channels, DType, const void* x, void* y, Stream);
void avg_pool2d_backward(const AvgPool2d&, int channels, DType, const void* dy, void* dx, Stream);

// ---- activations, element by element; y may be x ----

// leaky_relu.cu
void leaky_relu_forward(DType, long long elements, double negative_slope, const void* x, void* y, void* positive,
                        Stream);  // positive may be null
void leaky_relu_backward(DType, long long elements, double negative_slope, const void* dy, const void* positive,
                         void* dx, Stream);
void relu_forward(DType, long long elements, const void* x, void* y, Stream);
void relu_backward(DType, long long elements, const void* dy, const void* y, void* dx, Stream);
void relu6_forward(DType, long long elements, const void* x, void* y, Stream);
void relu6_backward(DType, long long elements, const void* dy, const void* y, void* dx, Stream);

// prelu.cu: `parts` has channel_slices() values of acc_t for each channel
void prelu_scale(const ByChannel&, DType, bool keep, const void* t, const void* x, const void* w, void* out, Stream);
void prelu_wgrad(const ByChannel&, DType, const void* dy, const void* t, const void* x, void* parts, void* dw, Stream);

}  // namespace convlab
