// A kernel of one's own as run_kernel.cpp calls it. convlab/testing/kernel.py writes a file that defines these over the
// kernel's source, for what the kernel computes: a problem (a Conv2d, say) and the tensors in the order of its
// launcher's arguments.
#pragma once
#include <cstddef>

namespace convlab::testing {

extern const size_t kProblemBytes;

const char* form();  // which of the arguments that convlab/testing/program.py offers the launcher takes
const char* refusal(const void* problem);  // why the kernel cannot do it; null when it can
long long workspace_bytes(const void* problem);
// Returns a program's exit status, or 0.
int run(const void* problem, const void* const* inputs, void* output, void* workspace);

}  // namespace convlab::testing
