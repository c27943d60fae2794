#include "kernels.h"

static __global__ void __launch_bounds__(96) of_one_file_kernel() {}

void launch_those_of_one() {
  print_refusal(of_both_files_kernel<32>, 33);
  print_refusal(of_one_file_kernel, 97);
}
