"""The poolings beside those of two dimensions with windows of one size, and what all poolings share."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.overrides import has_torch_function_unary, has_torch_function_variadic

from . import autograd, ops
from ._fast_apply import apply, needs_autograd
from ._inputs import check_input
from ._overrides import explained, overridden
from ._primitives import AdaptiveAvgPool2d, AdaptiveMaxPool2d, MaxUnpool2d
from .arguments import (
    SIGNED_OR_BYTE,
    IntOrPair,
    check_tensors,
    flag,
    integer,
    is_channels_last,
    pair,
    single,
    size_and_stride,
)

_torchs: Any = torch.nn.functional  # whose annotations say less than it takes
IntOrOne = int | tuple[int] | list[int]


def max_pooled(
    op: str, x: Tensor, window: autograd.Window, ceil_mode: bool, return_indices: bool
) -> Tensor | tuple[Tensor, Tensor]:
    """x [N, C, H, W] -> y [N, C, P, Q], and the int64 positions h * W + w of the winners, if wanted"""
    try:
        if not return_indices and not needs_autograd(x):
            return ops.max_pool2d_forward(x, window, ceil_mode, False)[0]
        y, offsets = apply(autograd.MaxPool2d, x, ceil_mode, window)
    except NotImplementedError as error:
        raise explained(error, op, input=x) from None
    if not return_indices:
        return y
    return y, apply(autograd.MaxPool2dIndices, offsets, x.shape[2:], is_channels_last(y), window)


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
    result = max_pooled(
        op, x, _window(op, kernel_size, stride, padding, dilation), flag(op, "ceil_mode", ceil_mode), return_indices
    )
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
    if torch.compiler.is_compiling():
        compiled: Tensor = _torchs.avg_pool1d(input, kernel_size, stride, padding, ceil_mode, count_include_pad)
        return compiled
    if has_torch_function_unary(input):
        return overridden(avg_pool1d, (input,), input, kernel_size, stride, padding, ceil_mode, count_include_pad)
    op = "avg_pool1d"
    check_input(op, input, frozenset((torch.int64,)))
    x = _of_height_one(op, input)
    arguments = autograd.AvgPoolArguments(
        _window(op, kernel_size, stride, padding),
        flag(op, "ceil_mode", ceil_mode),
        flag(op, "count_include_pad", count_include_pad),
        0,
    )
    return _in_one_dimension(averaged(op, x, arguments), input)


def _window(
    op: str, kernel_size: IntOrOne, stride: IntOrOne | None, padding: IntOrOne, dilation: IntOrOne = 1
) -> autograd.Window:
    """Its window, of images of height 1. stride defaults to kernel_size."""
    size, step = size_and_stride(op, kernel_size, stride, single)
    return 1, size, 1, step, 0, single(op, "padding", padding), 1, single(op, "dilation", dilation)


def _of_height_one(op: str, input: Tensor) -> Tensor:
    """[N, C, W] or [C, W] as [N, C, 1, W], a view"""
    if input.dim() not in (2, 3):
        raise RuntimeError(f"{op}: input must be [N, C, W] or [C, W], got {tuple(input.shape)}")
    return input.unsqueeze(-2) if input.dim() == 3 else input[None, :, None]


def _in_one_dimension(y: Tensor, input: Tensor) -> Tensor:
    """y [N, C, 1, Q] as [N, C, Q], or [C, Q] where input is [C, W]"""
    return y.squeeze(2) if input.dim() == 3 else y[0, :, 0]


# ---- adaptive pooling: windows as the sizes of output ask for ---------------------------------------------------------

_OutputSize = int | None | Sequence[int | None]


def adaptive_avg_pool1d(input: Tensor, output_size: IntOrOne) -> Tensor:
    """1-D average pooling to an output of a given size, as `torch.nn.functional.adaptive_avg_pool1d`.

    input: [N, C, W] or [C, W]; dtypes, windows and errors as for `adaptive_avg_pool2d`. Returns [N, C, output_size] or
    [C, output_size].
    """
    if torch.compiler.is_compiling():
        compiled: Tensor = _torchs.adaptive_avg_pool1d(input, output_size)
        return compiled
    if has_torch_function_unary(input):
        return overridden(adaptive_avg_pool1d, (input,), input, output_size)
    op = "adaptive_avg_pool1d"
    check_input(op, input)
    x, wanted = _of_height_one(op, input), single(op, "output_size", output_size)
    if _is_empty(input, wanted):
        empty: Tensor = _torchs.adaptive_avg_pool1d(input, output_size)
        return empty
    return _in_one_dimension(_adaptive_average(op, x, (1, wanted)), input)


def adaptive_avg_pool2d(input: Tensor, output_size: _OutputSize) -> Tensor:
    """2-D average pooling to an output of a given size, as `torch.nn.functional.adaptive_avg_pool2d`.

    input: [N, C, H, W] or [C, H, W], float32, float64, float16 or bfloat16. output_size: an int, or (height, width), of
    which None is input's. Window p of P begins at floor(p H / P) and ends before ceil((p + 1) H / P). Where all windows
    are alike, as they are where P divides H, this is avg_pool2d.

    Returns [N, C, P, Q] or [C, P, Q]. Raises RuntimeError for arguments that do not fit together, TypeError for
    arguments of the wrong type.
    """
    if torch.compiler.is_compiling():
        compiled: Tensor = _torchs.adaptive_avg_pool2d(input, output_size)
        return compiled
    if has_torch_function_unary(input):
        return overridden(adaptive_avg_pool2d, (input,), input, output_size)
    op = "adaptive_avg_pool2d"
    x, sizes = _adaptive_input(op, input, output_size)
    if _is_empty(input, *sizes):
        empty: Tensor = _torchs.adaptive_avg_pool2d(input, output_size)
        return empty
    y = _adaptive_average(op, x, sizes)
    return y if input.dim() == 4 else y.squeeze(0)


def adaptive_max_pool1d(
    input: Tensor, output_size: IntOrOne, return_indices: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """1-D max pooling to an output of a given size, as `torch.nn.functional.adaptive_max_pool1d`.

    input: [N, C, W] or [C, W]; dtypes, windows and errors as for `adaptive_max_pool2d`. Returns [N, C, output_size] or
    [C, output_size]; with return_indices also the int64 positions of the winners.
    """
    if has_torch_function_unary(input) and not torch.compiler.is_compiling():
        return overridden(adaptive_max_pool1d, (input,), input, output_size, return_indices=return_indices)
    op = "adaptive_max_pool1d"
    check_input(op, input)
    x, wanted = _of_height_one(op, input), single(op, "output_size", output_size)
    if _is_empty(input, wanted):
        empty: Tensor | tuple[Tensor, Tensor] = _torchs.adaptive_max_pool1d(input, output_size, return_indices)
        return empty
    y, indices = _adaptive_maximum(op, x, (1, wanted), return_indices)
    y = _in_one_dimension(y, input)
    return (y, _in_one_dimension(indices, input)) if return_indices else y


def adaptive_max_pool2d(
    input: Tensor, output_size: _OutputSize, return_indices: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """2-D max pooling to an output of a given size, as `torch.nn.functional.adaptive_max_pool2d`.

    input, output_size, windows and errors as for `adaptive_avg_pool2d`. Returns [N, C, P, Q] or [C, P, Q]; with
    return_indices also the int64 positions h * W + w of the winners.
    """
    if has_torch_function_unary(input) and not torch.compiler.is_compiling():
        return overridden(adaptive_max_pool2d, (input,), input, output_size, return_indices=return_indices)
    op = "adaptive_max_pool2d"
    x, sizes = _adaptive_input(op, input, output_size)
    if _is_empty(input, *sizes):
        empty: Tensor | tuple[Tensor, Tensor] = _torchs.adaptive_max_pool2d(input, output_size, return_indices)
        return empty
    y, indices = _adaptive_maximum(op, x, sizes, return_indices)
    if input.dim() == 3:
        y, indices = y.squeeze(0), indices.squeeze(0)
    return (y, indices) if return_indices else y


def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """What max_pool2d left out becomes 0, as `torch.nn.functional.max_unpool2d`.

    input, indices: [N, C, P, Q] or [C, P, Q], of max_pool2d with return_indices. Where indices name a position more than
    once, the last of them counts, in every run. Returns [N, C, H, W] or [C, H, W].

    Raises RuntimeError for indices outside the output (on the CPU), and for arguments that do not fit together.
    """
    if has_torch_function_variadic(input, indices) and not torch.compiler.is_compiling():
        return overridden(
            max_unpool2d, (input, indices), input, indices, kernel_size, stride, padding, output_size=output_size
        )
    op = "max_unpool2d"
    check_tensors(op, input=input, indices=indices)
    check_input(op, input)
    if input.dim() not in (3, 4) or indices.shape != input.shape or indices.dtype is not torch.int64:
        raise RuntimeError(
            f"{op}: input must be [N, C, P, Q] or [C, P, Q] and indices int64 of that shape, got {tuple(input.shape)} and "
            f"{indices.dtype} {tuple(indices.shape)}"
        )
    window_size, steps = size_and_stride(op, kernel_size, stride, pair)
    sizes = _torchs._unpool_output_size(
        input,
        list(window_size),
        list(steps),
        list(pair(op, "padding", padding)),
        None if output_size is None else list(output_size),
    )
    if _is_empty(input, *sizes):
        empty: Tensor = _torchs.max_unpool2d(input, indices, kernel_size, stride, padding, output_size)
        return empty
    x, where = (t if input.dim() == 4 else t.unsqueeze(0) for t in (input, indices))
    try:
        y: Tensor = apply(MaxUnpool2d, x, where, tuple(sizes[-2:]), is_channels_last(x))
    except NotImplementedError as error:
        raise explained(error, op, input=input, indices=indices) from None
    return y if input.dim() == 4 else y.squeeze(0)


@lru_cache(maxsize=1024)
def alike(size: int, outputs: int) -> tuple[int, int] | None:
    """The size and stride of the windows that make `outputs` of `size` positions, where they are all alike."""
    begins = [p * size // outputs for p in range(outputs)]
    ends = [-(-(p + 1) * size // outputs) for p in range(outputs)]
    kernel, stride = ends[0], begins[1] if outputs > 1 else size
    same = all(e - b == kernel and b == p * stride for p, (b, e) in enumerate(zip(begins, ends)))
    return (kernel, stride) if same and stride > 0 else None


def _adaptive_window(x: Tensor, sizes: tuple[int, int]) -> autograd.Window | None:
    """The pooling's window, where all are alike. Symbols, and the tensors that torch.jit.trace has for sizes, are
    not: a graph shall not depend on their values."""
    (H, W), (P, Q) = x.shape[2:], sizes
    return _window_of(H, W, P, Q) if type(H) is type(W) is type(P) is type(Q) is int else None


@lru_cache(maxsize=1024)
def _window_of(H: int, W: int, P: int, Q: int) -> autograd.Window | None:
    rows, columns = alike(H, P), alike(W, Q)
    return None if rows is None or columns is None else (rows[0], columns[0], rows[1], columns[1], 0, 0, 1, 1)


def _adaptive_input(op: str, input: Tensor, output_size: _OutputSize) -> tuple[Tensor, tuple[int, int]]:
    """input as [N, C, H, W], and the output's sizes"""
    check_input(op, input)
    if input.dim() not in (3, 4):
        raise RuntimeError(f"{op}: input must be [N, C, H, W] or [C, H, W], got {tuple(input.shape)}")
    given = list(output_size) if isinstance(output_size, (tuple, list)) else [output_size, output_size]
    if len(given) != 2:
        raise RuntimeError(f"{op}: output_size={output_size} has {len(given)} values, expected one or two")
    height, width = (
        n if size is None else integer(op, "output_size", size) for n, size in zip(input.shape[-2:], given)
    )
    return input if input.dim() == 4 else input.unsqueeze(0), (height, width)


def _is_empty(input: Tensor, *sizes: int) -> bool:
    """Whether torch shall say what becomes of nothing, or of an output of no size"""
    return any(isinstance(n, int) and n <= 0 for n in (*input.shape, *sizes))


def _adaptive_average(op: str, x: Tensor, sizes: tuple[int, int]) -> Tensor:
    if window := _adaptive_window(x, sizes):
        return averaged(op, x, autograd.AvgPoolArguments(window, False, True, 0))
    try:
        y: Tensor = apply(AdaptiveAvgPool2d, x, sizes)
        return y
    except NotImplementedError as error:
        raise explained(error, op, input=x) from None


def _adaptive_maximum(op: str, x: Tensor, sizes: tuple[int, int], return_indices: bool) -> tuple[Tensor, Tensor]:
    """y, and the winners' positions, or y again where nobody wants them"""
    if window := _adaptive_window(x, sizes):
        result = max_pooled(op, x, window, False, return_indices)
        return result if isinstance(result, tuple) else (result, result)
    try:
        y, indices = apply(AdaptiveMaxPool2d, x, sizes)
        return y, indices
    except NotImplementedError as error:
        raise explained(error, op, input=x) from None
