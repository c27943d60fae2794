// A tile of one's own choice, for instruments that ask what the others would take. Torch-free.
#pragma once
#include "algorithms.h"

namespace convlab {

// An operator's argument for an algorithm with the n-th of its tiles, counted from 1: + n kWithTile
constexpr int64_t kWithTile = 1 << 20;

// The tiles that an algorithm chooses among for a problem that it can do on CUDA, a bit each; 0: it has no choice.
unsigned tiles_of(const AlgorithmRow& row, const Problem&);

}  // namespace convlab
