// Registering operators. The same sources make several libraries, each with an operator namespace and dispatch key of
// its own: convlab's own operators for CPU and CUDA tensors, and the simulators', whose CUDA backend takes CPU tensors.
#pragma once
#include <torch/csrc/stable/library.h>

#if !defined(CONVLAB_NAMESPACE)
#define CONVLAB_NAMESPACE convlab
#endif

#if defined(CONVLAB_SIMULATED)
#define CONVLAB_CUDA_KEY CPU
#else
#define CONVLAB_CUDA_KEY CUDA
#endif

// One macro further, so that the names above are replaced before torch's macros make strings of them.
#define CONVLAB_LIBRARY_OF(name, m) STABLE_TORCH_LIBRARY(name, m)
#define CONVLAB_IMPL_OF(name, key, m) STABLE_TORCH_LIBRARY_IMPL(name, key, m)

#define CONVLAB_REGISTER_OPERATORS(m) CONVLAB_LIBRARY_OF(CONVLAB_NAMESPACE, m)
#define CONVLAB_REGISTER_CPU(m) CONVLAB_IMPL_OF(CONVLAB_NAMESPACE, CPU, m)
#define CONVLAB_REGISTER_CUDA(m) CONVLAB_IMPL_OF(CONVLAB_NAMESPACE, CONVLAB_CUDA_KEY, m)
