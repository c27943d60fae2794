"""The poolings beside those of two dimensions with windows of one size, and what all poolings share."""

from typing import Literal, overload

import torch
from torch import Tensor
from torch.overrides import has_torch_function_unary

from . import autograd, ops
from ._fast_apply import apply, needs_autograd
from ._inputs import check_input
from ._overrides import explained, overridden
from .arguments import SIGNED_OR_BYTE, flag, is_channels_last, single

IntOrOne = int | tuple[int] | list[int]


def max_pooled(
    op: str, x: Tensor, arguments: autograd.PoolArguments, ceil_mode: bool, return_indices: bool
) -> Tensor | tuple[Tensor, Tensor]:
    """x [N, C, H, W] -> y [N, C, P, Q], and the int64 positions h * W + w of the winners, if wanted"""
    try:
        if not return_indices and not needs_autograd(x):
            return ops.max_pool2d_forward(x, *arguments, ceil_mode, False)[0]
        y, offsets = apply(autograd.MaxPool2d, x, ceil_mode, arguments)
    except NotImplementedError as error:
        raise explained(error, op, input=x) from None
    if not return_indices:
        return y
    return y, apply(autograd.MaxPool2dIndices, offsets, x.shape[2:], is_channels_last(y), arguments)


def averaged(op: str, x: Tensor, arguments: autograd.AvgPoolArguments) -> Tensor:
    """x [N, C, H, W] -> y [N, C, P, Q]"""
    try:
        y: Tensor = apply(autograd.AvgPool2d, x, arguments)
        return y
    except NotImplementedError as error:
        raise explained(error, op, input=x) from None


# ---- one dimension: two, with a height of 1 -------------------------------------------------------------------------


@overload
def max_pool1d(
    input: Tensor,
    kernel_size: IntOrOne,
    stride: IntOrOne | None = None,
    padding: IntOrOne = 0,
    dilation: IntOrOne = 1,
    ceil_mode: bool = False,
    return_indices: Literal[False] = False,
) -> Tensor: ...


@overload
def max_pool1d(
    input: Tensor,
    kernel_size: IntOrOne,
    stride: IntOrOne | None = None,
    padding: IntOrOne = 0,
    dilation: IntOrOne = 1,
    ceil_mode: bool = False,
    *,
    return_indices: Literal[True],
) -> tuple[Tensor, Tensor]: ...


@overload
def max_pool1d(
    input: Tensor,
    kernel_size: IntOrOne,
    stride: IntOrOne | None = None,
    padding: IntOrOne = 0,
    dilation: IntOrOne = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]: ...


def max_pool1d(
    input: Tensor,
    kernel_size: IntOrOne,
    stride: IntOrOne | None = None,
    padding: IntOrOne = 0,
    dilation: IntOrOne = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """1-D max pooling, as `torch.nn.functional.max_pool1d`: max_pool2d of images of height 1, without a copy.

    input: [N, C, W] or [C, W]; dtypes, arguments and errors as for `max_pool2d`. Returns [N, C, Q] or [C, Q]; with
    return_indices also the int64 positions w of the winners.
    """
    if has_torch_function_unary(input) and not torch.compiler.is_compiling():
        return overridden(
            max_pool1d,
            (input,),
            input,
            kernel_size,
            stride,
            padding,
            dilation,
            ceil_mode,
            return_indices=return_indices,
        )
    op = "max_pool1d"
    check_input(op, input, SIGNED_OR_BYTE)
    x = _of_height_one(op, input)
    k, s = _window(op, kernel_size, stride)
    arguments = autograd.PoolArguments(
        (1, k), (1, s), (0, single(op, "padding", padding)), (1, single(op, "dilation", dilation))
    )
    result = max_pooled(op, x, arguments, flag(op, "ceil_mode", ceil_mode), return_indices)
    if isinstance(result, tuple):
        return _in_one_dimension(result[0], input), _in_one_dimension(result[1], input)
    return _in_one_dimension(result, input)


def avg_pool1d(
    input: Tensor,
    kernel_size: IntOrOne,
    stride: IntOrOne | None = None,
    padding: IntOrOne = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """1-D average pooling, as `torch.nn.functional.avg_pool1d`: avg_pool2d of images of height 1, without a copy.

    input: [N, C, W] or [C, W]; dtypes, arguments and errors as for `avg_pool2d`. Returns [N, C, Q] or [C, Q].
    """
    if has_torch_function_unary(input) and not torch.compiler.is_compiling():
        return overridden(avg_pool1d, (input,), input, kernel_size, stride, padding, ceil_mode, count_include_pad)
    op = "avg_pool1d"
    check_input(op, input, frozenset((torch.int64,)))
    x = _of_height_one(op, input)
    k, s = _window(op, kernel_size, stride)
    ceil_mode, count_include_pad = flag(op, "ceil_mode", ceil_mode), flag(op, "count_include_pad", count_include_pad)
    arguments = autograd.AvgPoolArguments(
        (1, k), (1, s), (0, single(op, "padding", padding)), ceil_mode, count_include_pad, 0
    )
    return _in_one_dimension(averaged(op, x, arguments), input)


def _window(op: str, kernel_size: IntOrOne, stride: IntOrOne | None) -> tuple[int, int]:
    """A pooling's kernel_size and stride, which defaults to it."""
    size = single(op, "kernel_size", kernel_size)
    no_stride = stride is None or (isinstance(stride, (tuple, list)) and not stride)
    return size, size if no_stride else single(op, "stride", stride)


def _of_height_one(op: str, input: Tensor) -> Tensor:
    """[N, C, W] or [C, W] as [N, C, 1, W], a view"""
    if input.dim() not in (2, 3):
        raise RuntimeError(f"{op}: input must be [N, C, W] or [C, W], got {tuple(input.shape)}")
    return input.unsqueeze(-2) if input.dim() == 3 else input[None, :, None]


def _in_one_dimension(y: Tensor, input: Tensor) -> Tensor:
    """y [N, C, 1, Q] as [N, C, Q], or [C, Q] where input is [C, W]"""
    return y.squeeze(2) if input.dim() == 3 else y[0, :, 0]
