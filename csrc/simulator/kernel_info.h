// What can be known of a kernel from its address.
#pragma once
#include <string>

#include "simulator/runtime.h"

namespace convlab::sim {

struct KernelInfo {
  std::string name;        // forward_kernel<float>
  std::string source;      // csrc/kernels/conv2d_direct.cu:34
  unsigned launch_bounds;  // threads a block, 0 if the kernel declares none
  std::string title() const { return name + (source.empty() ? "" : " (" + source + ")"); }
};

const KernelInfo& kernel_info(const void* kernel);

// What to say of it, where the compiled library does not have its name.
void name_kernel(const void* kernel, const std::string& name, Site launched_from);

}  // namespace convlab::sim
