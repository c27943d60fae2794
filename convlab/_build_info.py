"""What this convlab was built with, and what it runs on."""

import platform
from typing import Any

import torch

from . import cpu
from ._load import lab as _lab


def build_info() -> dict[str, Any]:
    """Facts for a bug report.

    Keys: `cuda` (whether the CUDA kernels were compiled), `cuda_archs` (list of compute capabilities), `nvcc`, `cxx`
    and `torch_built` (versions at build time), `torch` and `python` (versions now), `cpu_kernels` (the instruction set
    whose CPU kernels run), `amx` (whether bfloat16 has AMX as well).
    """
    built = _lab.build_info()
    return {
        "cuda": bool(built["nvcc"]),
        "cuda_archs": [arch for arch in built["cuda_archs"].split(";") if arch],
        "nvcc": built["nvcc"],
        "cxx": built["cxx"],
        "torch_built": built["torch"],
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpu_kernels": cpu.kernels(),
        "amx": cpu.has_amx(),
    }
