"""What every function of convlab asks of its input, and what autocast makes of it."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .arguments import check_device, check_dtype, check_tensors
from .simulator import backend_of


def check_input(op: str, input: Tensor, integers: frozenset[torch.dtype] = frozenset()) -> None:
    """That it is a tensor, on a device and of a dtype that there are kernels for."""
    if not isinstance(input, torch.Tensor):
        check_tensors(op, input=input)
    if not input.is_cpu or input.dtype is not torch.float32:
        check_device(op, input)
        check_dtype(op, input, integers, backend_of(input))


def autocast(device: str, *tensors: Tensor | None) -> Iterator[Any]:
    """What autocast does to a convolution's tensors: its dtype for every floating one but float64."""
    dtype = torch.get_autocast_dtype(device)

    def cast(t: Tensor | None) -> Tensor | None:
        return t.to(dtype) if t is not None and t.is_floating_point() and t.dtype != torch.float64 else t

    return map(cast, tensors)


def autocast_if_enabled(input: Tensor, *others: Tensor | None) -> Iterator[Any]:
    """input and the others, cast where autocast is on for input's device."""
    device = "cpu" if input.is_cpu else "cuda" if input.is_cuda else ""
    if device and torch.is_autocast_enabled(device):
        return autocast(device, input, *others)
    return iter((input, *others))


def check_convolution(op: str, input: object, weight: object, bias: object) -> None:
    """That these are tensors; bias may be None."""
    check_tensors(op, input=input, weight=weight, **({} if bias is None else {"bias": bias}))


def is_nothing(input: Tensor) -> bool:
    """Whether it has no elements, so that torch knows what becomes of it. While torch.jit.trace runs, numel() is a tensor,
    which cannot be asked."""
    elements = input.numel()
    return not isinstance(elements, torch.Tensor) and elements == 0
