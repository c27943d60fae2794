// Kernels with one bug each, to see that the simulator reports it. A comment at the line where the report must point tells
// what it says: `// check: ...` in the checking build, `// plain: ...` in the plain one, `// both: ...`, `// plain on x86-64: ...`; of
// several texts between '|' one must occur. Where the plain build
// can only show wrong values, RIGHT says what right ones are. run.cpp runs them all, tests/test_planted.py reads both.
#pragma once
#include <vector>

#include "device/async_copy.h"
#include "device/device.h"
#include "device/mma.h"
#include "device/vector.h"
#include "device/wgmma.h"

namespace planted {

using convlab::launch;

constexpr int kElements = 256;  // of in and of out, float32

struct Case {
  const char* name;
  void (*run)(const float* in, float* out);
  float (*right)(const float* in, int i);  // what out[i] must be; null where nothing is right
};

std::vector<Case>& cases();

struct Registered {
  Registered(const Case& c) { cases().push_back(c); }
};

}  // namespace planted

// One block of 64 threads of name_kernel(in, out).
#define PLANTED(name, ...) PLANTED_LAUNCH(name, (launch(name##_kernel, dim3(1), dim3(64), 0, nullptr, in, out)), __VA_ARGS__)
#define PLANTED_LAUNCH(name, launch_it, ...) \
  static const Registered name##_case({#name, [](const float* in, float* out) { launch_it; }, __VA_ARGS__})
#define RIGHT [](const float* in, int i) -> float
