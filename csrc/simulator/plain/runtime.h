// What run_kernel.cpp asks of the plain CUDA functions after a run.
#pragma once
#include <string>

namespace convlab::sim::plain {

std::string printed();  // by printf in kernels, a line each with the block and the thread, the first few

}  // namespace convlab::sim::plain
