// A convolution algorithm on the CPU. Torch-free.
#pragma once
#include <memory>

#include "algorithms.h"
#include "cpu/conv2d/block/finish.h"
#include "cpu/workspace.h"
#include "geometry/epilogue.h"

namespace convlab {

// What it decides about a problem before it computes anything
struct CpuPlan {
  int images_per_strip = 0, rows_per_strip = 0;  // of what it writes, or of dy in wgrad; 0: all
  int64_t pieces = 1;  // of work, that threads share
  int slices = 1;  // of wgrad's sum, added up in their order
  int64_t workspace = 0, scratch = 0;  // bytes: of all threads together, and of each
  std::shared_ptr<const void> tables{};  // the algorithm's own
  Epilogue epilogue = Epilogue::none;  // strip by strip; where it has none, the ending is a pass of its own
  // Whether an activation alone is made of sums in registers, where no winners are kept: that costs no pass
  bool activates = false;
  int strip_step = 0;  // strips begin at rows that are multiples of this; 0: of rows_per_strip

  // windows: of strips that have all of their rows
  bool finishes(const Ending& e, int rows) const {
    const int step = strip_step ? strip_step : rows_per_strip;
    return has_epilogue(epilogue, e) && (!e.pools() || step >= rows || step % e.R == 0);
  }
};

// Memory of all threads together: packed weights, or wgrad's slices of sums; and the packed bias
struct Shared {
  char *weights, *bias;

  template <class Memory> Shared(Memory& memory, int64_t weight_bytes, int64_t bias_bytes) {
    memory.take(weights, weight_bytes), memory.take(bias, bias_bytes);
  }
};

struct Operands {
  const void *first, *second;  // x and w, dy and w, or dy and x
  const void* bias;  // of the output's channels, in forward and dgrad; may be null
  void* output;
  const Finish* finish = nullptr;  // of forward, by a plan that finishes it: then there is no output
  Ending ending{};  // of forward, by a plan that activates: what the output becomes
};

// Makes an algorithm's `run` known. Each algorithm's .cpp ends with one.
struct Runs {
  Runs(CpuRung& rung, void (*run)(const CpuPlan&, const Problem&, const Operands&)) { rung.run = run; }
};

}  // namespace convlab
