"""The activations beside leaky ReLU."""

from typing import Any

import torch
from torch import Tensor
from torch.overrides import has_torch_function_unary, has_torch_function_variadic

from . import autograd
from ._fast_apply import apply
from ._inputs import autocast_if_enabled, check_input
from ._overrides import explained, overridden
from ._primitives import PReLU, ReLU6
from .arguments import SIGNED_OR_BYTE, check_device, check_tensors


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x where x > 0, else x * weight, as `torch.nn.functional.prelu`.

    input: any shape; float32, float64, float16 or bfloat16. weight: of one value, or of one for each channel, which is
    input's second dimension; of input's dtype, under autocast of any. Its gradient is summed in the same order every time.

    Raises RuntimeError for arguments that do not fit together, TypeError for arguments of the wrong type.
    """
    if torch.compiler.is_compiling():  # the compiler makes a loop with what is around it
        return torch.prelu(*autocast_if_enabled(input, weight))
    if has_torch_function_variadic(input, weight):
        return overridden(prelu, (input, weight), input, weight)
    check_tensors("prelu", input=input, weight=weight)
    input, weight = autocast_if_enabled(input, weight)
    check_input("prelu", input)
    channels = input.shape[1] if input.dim() >= 2 else 1
    if weight.dim() > 1 or weight.numel() not in (1, channels):
        raise RuntimeError(
            f"prelu: weight is {tuple(weight.shape)}, expected one value, or one for each of the {channels} channels of "
            f"input {tuple(input.shape)}"
        )
    if weight.dtype != input.dtype or weight.device != input.device:
        raise RuntimeError(
            f"prelu: weight is {weight.dtype} on {weight.device}, expected input's {input.dtype} on {input.device}"
        )
    try:
        y: Tensor = apply(PReLU, input, weight if weight.dim() == 1 else weight.reshape(-1))
        return y
    except NotImplementedError as error:
        raise explained(error, "prelu", input=input, weight=weight) from None


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """x where x > 0, else 0, as `torch.nn.functional.relu`: NaN stays NaN, -inf becomes 0.

    input: any shape; float32, float64, float16, bfloat16, or integers. inplace overwrites and returns it.
    Raises NotImplementedError for bool and complex input, TypeError for what is no tensor.
    """
    if torch.compiler.is_compiling():  # the compiler makes a loop with what is around it
        return torch.nn.functional.relu(input, inplace)
    if has_torch_function_unary(input):
        return overridden(relu, (input,), input, inplace=inplace)
    return _clamped("relu", autograd.ReLU, (), input, None, inplace)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """0 where x <= 0, 6 where x >= 6, else x, as `torch.nn.functional.relu6`: NaN stays NaN.

    input: any shape; float32, float64, float16, bfloat16, or integers. inplace overwrites and returns it.
    Raises NotImplementedError for bool and complex input, TypeError for what is no tensor.
    """
    if torch.compiler.is_compiling():
        return torch.nn.functional.relu6(input, inplace)
    if has_torch_function_unary(input):
        return overridden(relu6, (input,), input, inplace=inplace)
    return _clamped("relu6", ReLU6, (bool(inplace),), input, 6, inplace)


def _clamped(op: str, function: Any, args: tuple[Any, ...], input: Tensor, most: int | None, inplace: bool) -> Tensor:
    """input between 0 and `most`, by `function` of it and `args`."""
    check_tensors(op, input=input)
    if input.dtype in SIGNED_OR_BYTE:  # on every device, and without gradients
        check_device(op, input)
        return torch.clamp_(input, 0, most) if inplace else torch.clamp(input, 0, most)
    check_input(op, input)
    try:
        y: Tensor = (autograd.in_place if inplace else apply)(function, input, *args)
        return y
    except NotImplementedError as error:
        raise explained(error, op, input=input) from None
