"""The precisions that are compared: one is what float32 tensors are multiplied in, or another type of tensor."""

from contextlib import contextmanager

import torch

PRECISIONS = (
    "float32",
    "tf32",
    "bfloat16",
)  # tf32: float32 tensors, multiplied in ten bits on tensor cores; torch's default for convolutions


def dtype_of(precision: str) -> torch.dtype:
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


@contextmanager
def multiplying_in(precision: str):
    """Convolutions and products of float32 tensors are made in this precision; cuDNN tries its algorithms and keeps the
    fastest."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark
    cudnn.allow_tf32 = matmul.allow_tf32 = precision == "tf32"
    cudnn.benchmark = True
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark = before
