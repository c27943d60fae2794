// A kernel that two files have, and what each file does with it and with one of its own.
#pragma once
#include <cstdio>
#include <exception>

#include "device/device.h"

template <int n> __global__ void __launch_bounds__(n) of_both_files_kernel() {}

// Prints why a block of `threads` is not launched.
inline void print_refusal(void (*kernel)(), int threads) {
  try {
    convlab::launch(kernel, dim3(1), dim3(threads), 0, nullptr);
    puts("launched");
  } catch (const std::exception& e) {
    puts(e.what());
  }
}

void launch_those_of_one();
void launch_those_of_other();
