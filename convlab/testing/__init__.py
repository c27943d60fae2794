"""Checking kernels and layers of one's own, and convlab's.

    convlab.testing.check_conv2d(my_conv2d)                              # any callable, against float64, on problems made to break it
    convlab.testing.check_kernel("my_kernel.cuh", like="conv2d_forward") # a CUDA kernel, without a GPU: python -m
    convlab.check

What is wrong is a CheckError that says where, by how much, and what it suggests.
"""

from .activation import check_leaky_relu, check_relu
from .cases import AVG_POOLS, AWKWARD, POOLS, AvgPool, Conv, Pool, random_avg_pool, random_conv, random_pool
from .compare import CheckError, assert_sums_close, conv_in_float64
from .contracts import CONTRACTS
from .conv2d import check_conv, check_conv2d
from .kernel import CompileError, Finding, KernelReport, check_kernel, template
from .pooling import check_avg_pool2d, check_max_pool2d
from .probe import DTYPES, LAYOUTS, Checked, poisoned_memory

__all__ = [
    "AVG_POOLS",
    "AWKWARD",
    "CONTRACTS",
    "DTYPES",
    "LAYOUTS",
    "POOLS",
    "AvgPool",
    "CheckError",
    "Checked",
    "CompileError",
    "Conv",
    "Finding",
    "KernelReport",
    "Pool",
    "assert_sums_close",
    "check_avg_pool2d",
    "check_conv",
    "check_conv2d",
    "check_kernel",
    "check_leaky_relu",
    "check_max_pool2d",
    "check_relu",
    "conv_in_float64",
    "poisoned_memory",
    "random_avg_pool",
    "random_conv",
    "random_pool",
    "template",
]
