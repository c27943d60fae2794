// CUDA's atomic functions.
#pragma once
#include "simulator/runtime.h"

inline float atomicAdd(float* address, float value, CONVLAB_SITE) {
  return convlab::sim::atomic_add(address, value, site);
}
inline double atomicAdd(double* address, double value, CONVLAB_SITE) {
  return convlab::sim::atomic_add(address, value, site);
}
inline int atomicAdd(int* address, int value, CONVLAB_SITE) { return convlab::sim::atomic_add(address, value, site); }
inline unsigned atomicAdd(unsigned* address, unsigned value, CONVLAB_SITE) {
  return convlab::sim::atomic_add(address, value, site);
}
inline unsigned long long atomicAdd(unsigned long long* address, unsigned long long value, CONVLAB_SITE) {
  return convlab::sim::atomic_add(address, value, site);
}
inline int atomicMax(int* address, int value, CONVLAB_SITE) { return convlab::sim::atomic_max(address, value, site); }
inline unsigned atomicCAS(unsigned* address, unsigned expected, unsigned value, CONVLAB_SITE) {
  return convlab::sim::atomic_cas(address, expected, value, site);
}
