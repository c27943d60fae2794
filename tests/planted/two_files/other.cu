#include "kernels.h"

static __global__ void __launch_bounds__(160) of_other_file_kernel() {}

void launch_those_of_other() {
  print_refusal(of_both_files_kernel<32>, 33);
  print_refusal(of_other_file_kernel, 161);
}
