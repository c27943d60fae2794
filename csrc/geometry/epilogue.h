// Which endings of a block an algorithm's forward goes on with, instead of writing what the convolution makes. Torch-free.
#pragma once
#include "geometry/ending.h"

namespace convlab {

// An activation alone; windows of 2 x 2 as well; any
enum class Epilogue { none, activation, two_by_two, windows };

inline bool has_epilogue(Epilogue epilogue, const Ending& e) {
  if (!e.pools()) return epilogue != Epilogue::none;
  return epilogue == Epilogue::windows || (epilogue == Epilogue::two_by_two && e.R == 2 && e.S == 2);
}

}  // namespace convlab
