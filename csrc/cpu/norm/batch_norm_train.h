// Batch normalization by the batch's own statistics, as in training, the activation behind it, and the gradients:
//
//   y  = activated(z), z = x scale + shift, where scale = gamma rstd and shift = beta - mean scale
//   g  = dy where the activation passes z
//   dx = scale (g - mean of g - (x - mean) rstd^2 mean of g (x - mean))
//
// (Ioffe and Szegedy 2015, arXiv 1502.03167). Sums are made slice by slice, so that they have the same bits for any
// number of threads, and what reads a slice again finds it in a cache. All is float32 or float64.
// Statistics are of differences: first from zero, then from the mean that gives, what is left corrects both, and a mean far
// from zero costs little accuracy (Chan, Golub and LeVeque 1983, doi.org/10.1080/00031305.1983.10483115).
#pragma once
#include "cpu/norm/batch_norm.h"

namespace convlab {

// Of ByChannel's outer and channels
struct Slice {
  int64_t outer0, outer1, channel0, channel1;
};

// x -> for each channel of the slice its mean there, what is to be added to it, and the sum of squares of what differs
// from that
CONVLAB_KERNEL(batch_statistics,
               void(const ByChannel&, const Slice&, const void* x, void* mean, void* rest, void* squares));

// For each channel of the slice, the sums of g and of g (x - mean)
CONVLAB_KERNEL(batch_norm_grad_sums, void(const Normalization&, const Slice&, const void* scale, const void* shift,
                                          const void* mean, const void* dy, const void* x, void* sums, void* products));

// dx = g scale + (x - mean) by + plus
CONVLAB_KERNEL(batch_norm_dgrad,
               void(const Normalization&, const Slice&, const void* scale, const void* shift, const void* mean,
                    const void* by, const void* plus, const void* dy, const void* x, void* dx));

}  // namespace convlab
