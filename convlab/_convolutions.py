"""The convolutions beside conv2d: one dimension is two with a height of 1, and a transposed convolution is what dgrad
computes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import has_torch_function_variadic

from . import autograd
from ._algorithms import AUTO, Algo, Numbers, as_switched, numbers_for_sizes
from ._fast_apply import apply
from ._inputs import autocast_if_enabled, check_convolution, check_input, is_nothing
from ._overrides import explained, overridden
from ._primitives import ConvTranspose2d
from .arguments import SIGNED_OR_BYTE, IntOrPair, integer, is_channels_last, pair, remembered, single
from .simulator import backend_of

IntOrOne = int | tuple[int] | list[int]
_INT64 = frozenset((torch.int64,))


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrOne = 1,
    padding: IntOrOne | str = 0,
    dilation: IntOrOne = 1,
    groups: int = 1,
    *,
    algo: Algo = "auto",
) -> Tensor:
    """1-D convolution, as `torch.nn.functional.conv1d`: conv2d of images of height 1, without a copy.

    input: [N, C, W] or [C, W]; weight: [K, C/groups, S]; bias: [K] or None. dtypes, padding "same" and "valid", algo
    and errors are those of `conv2d`.

    Returns [N, K, Q] or [K, Q], with Q = floor((W + 2 padding - dilation (S - 1) - 1) / stride) + 1.
    """
    tensors = (input, weight, bias)
    if has_torch_function_variadic(*tensors) and not torch.compiler.is_compiling():
        return overridden(conv1d, tensors, *tensors, stride, padding, dilation, groups, algo=algo)
    check_convolution("conv1d", input, weight, bias)
    if input.dim() == 2 and weight.dim() == 3:
        return conv1d(input.unsqueeze(0), weight, bias, stride, padding, dilation, groups, algo=algo).squeeze(0)
    if input.dim() != 3 or weight.dim() != 3:
        raise RuntimeError(
            f"conv1d: input must be [N, C, W] or [C, W] and weight [K, C/groups, S], got {tuple(input.shape)} and {tuple(weight.shape)}"
        )
    if is_nothing(input) and algo == "auto":
        return torch.nn.functional.conv1d(input, weight, bias, stride, padding, dilation, groups)
    input, weight, bias = autocast_if_enabled(input, weight, bias)
    check_input("conv1d", input, SIGNED_OR_BYTE)
    s, d = single("conv1d", "stride", stride), single("conv1d", "dilation", dilation)
    if not input.is_floating_point() and input.dtype is not torch.int64 and d != 1:
        raise NotImplementedError(f"conv1d: dilation={dilation} with {input.dtype}: of the integers, only int64 has it")
    left, right = _padding("conv1d", padding, s, weight.shape[2], d)
    geometry = (1, s, 0, left, 0, right, 1, d, integer("conv1d", "groups", groups))
    x, w = input.contiguous().unsqueeze(2), weight.unsqueeze(2)
    try:
        return autograd.conv2d(x, w, bias, geometry, _numbers(algo, x.shape, x, w, geometry)).squeeze(2)
    except RuntimeError as error:
        raise _of_height_one(error, "conv1d", input, weight, bias) from None


def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrOne = 1,
    padding: IntOrOne = 0,
    output_padding: IntOrOne = 0,
    groups: int = 1,
    dilation: IntOrOne = 1,
    *,
    algo: Algo = "auto",
) -> Tensor:
    """1-D transposed convolution, as `torch.nn.functional.conv_transpose1d`: conv_transpose2d of images of height 1,
    without a copy.

    input: [N, C, W] or [C, W]; weight: [C, K/groups, S]; bias: [K] or None. dtypes, the other arguments, algo and
    errors are those of `conv_transpose2d`.

    Returns [N, K, Q] or [K, Q], with Q = (W - 1) stride - 2 padding + dilation (S - 1) + output_padding + 1.
    """
    return _conv_transpose(
        conv_transpose1d, single, input, weight, bias, stride, padding, output_padding, groups, dilation, algo
    )


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrPair = 1,
    padding: IntOrPair = 0,
    output_padding: IntOrPair = 0,
    groups: int = 1,
    dilation: IntOrPair = 1,
    *,
    algo: Algo = "auto",
) -> Tensor:
    """2-D transposed convolution, as `torch.nn.functional.conv_transpose2d`: what a convolution's dgrad makes of input.

    input: [N, C, H, W] or [C, H, W]; weight: [C, K/groups, R, S]; bias: [K] or None. All of one dtype: float32,
    float64, float16 or bfloat16; on the CPU also int64. output_padding is less than stride or dilation.
    algo: as for `conv2d`, in the passes of the convolution that this one transposes: "dgrad" is what forward runs,
    "forward" what the gradient to input runs.

    Returns [N, K, P, Q] or [K, P, Q], with P = (H - 1) stride - 2 padding + dilation (R - 1) + output_padding + 1 and Q
    alike; in channels_last if input or weight is. Raises as `conv2d`.
    """
    return _conv_transpose(
        conv_transpose2d, pair, input, weight, bias, stride, padding, output_padding, groups, dilation, algo
    )


_Pair = tuple[int, int]


def _conv_transpose(
    function: Callable[..., Tensor],
    numbers_of: Callable[[str, str, Any], Any],
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
    algo: Algo,
) -> Tensor:
    """conv_transpose1d or conv_transpose2d, as `function` says; numbers_of: `single` or `pair`, which read its
    arguments."""
    op, tensors, arguments = (
        function.__name__,
        (input, weight, bias),
        (stride, padding, output_padding, groups, dilation),
    )
    if has_torch_function_variadic(*tensors) and not torch.compiler.is_compiling():
        overriding: Tensor = overridden(function, tensors, *tensors, *arguments, algo=algo)
        return overriding
    check_convolution(op, input, weight, bias)
    flat = numbers_of is single
    dims, sizes = (3, ("W", "S")) if flat else (4, ("H, W", "R, S"))
    if input.dim() == dims - 1 and weight.dim() == dims:
        return function(input.unsqueeze(0), weight, bias, *arguments, algo=algo).squeeze(0)
    if input.dim() != dims or weight.dim() != dims:
        raise RuntimeError(
            f"{op}: input must be [N, C, {sizes[0]}] or [C, {sizes[0]}] and weight [C, K/groups, {sizes[1]}], got {tuple(input.shape)} and {tuple(weight.shape)}"
        )
    if is_nothing(input) and algo == "auto":
        empty: Tensor = getattr(torch.nn.functional, op)(input, weight, bias, *arguments)
        return empty
    named = {"stride": stride, "padding": padding, "output_padding": output_padding, "dilation": dilation}
    s, p, o, d = (numbers_of(op, name, value) for name, value in named.items())
    x, w = input, weight
    if flat:
        x, w = input.contiguous().unsqueeze(2), weight.unsqueeze(2)
        s, p, o, d = (1, s), (0, p), (0, o), (1, d)
    try:
        y = _transposed(op, x, w, bias, s, p, o, integer(op, "groups", groups), d, algo)
    except RuntimeError as error:
        if flat:
            raise _of_height_one(error, op, input, weight, bias) from None
        raise explained(error, op, input=input, weight=weight, bias=bias) from None
    return y.squeeze(2) if flat else y


def _transposed(
    op: str,
    x: Tensor,
    w: Tensor,
    bias: Tensor | None,
    stride: _Pair,
    padding: _Pair,
    output_padding: _Pair,
    groups: int,
    dilation: _Pair,
    algo: Algo,
) -> Tensor:
    """x [N, C, H, W], w [C, K/groups, R, S], bias [K] or None -> y [N, K, P, Q]"""
    x, w, bias = autocast_if_enabled(x, w, bias)
    check_input(op, x, _INT64)
    (K, *sizes), (below, right), geometry = _fit(
        op, tuple(x.shape), tuple(w.shape), stride, padding, output_padding, groups, dilation
    )
    if bias is not None and (bias.dim() != 1 or bias.shape[0] != K):
        raise RuntimeError(f"{op}: bias is {tuple(bias.shape)}, expected [{K}]")
    for name, t in (("weight", w), ("bias", bias)):
        if t is not None and (t.dtype != x.dtype or t.device != x.device):
            raise RuntimeError(f"{op}: {name} is {t.dtype} on {t.device}, expected input's {x.dtype} on {x.device}")
    if below or right:
        x = torch.nn.functional.pad(x, (0, right, 0, below))
    if not x.is_floating_point():
        return _of_integers(x, w, bias, sizes, geometry)
    numbers = _numbers(algo, (x.shape[0], K, *sizes), x, w, geometry)
    channels_last = is_channels_last(x) or is_channels_last(w)
    arguments = autograd.ConvArguments(geometry, numbers)
    y: Tensor = apply(ConvTranspose2d, x, w, bias, tuple(sizes), channels_last, arguments)
    return y


@remembered
def _fit(
    op: str,
    x: tuple[int, ...],
    w: tuple[int, ...],
    stride: _Pair,
    padding: _Pair,
    output_padding: _Pair,
    groups: int,
    dilation: _Pair,
) -> tuple[tuple[int, int, int], _Pair, tuple[int, ...]]:
    """(K, P, Q) of x [N, C, H, W] and w [C, K/groups, R, S]; by how much to pad x, below and on the right: as much
    output_padding as a stride is an output of the convolution that is not there, which reads zeros; and the geometry.
    Raises RuntimeError where the arguments do not fit together."""
    if groups < 1 or x[1] != w[0] or w[0] % groups:
        raise RuntimeError(
            f"{op}: input {x}, weight {w} and groups={groups} do not fit: the channels of input must be the first size "
            "of weight, and groups must divide them"
        )
    if min(stride) < 1 or min(dilation) < 1 or min(padding) < 0 or min(output_padding) < 0:
        raise RuntimeError(
            f"{op}: stride={stride} and dilation={dilation} must be at least 1, padding={padding} and output_padding={output_padding} at least 0"
        )
    if any(o >= max(s, d) for o, s, d in zip(output_padding, stride, dilation)):
        raise RuntimeError(
            f"{op}: output_padding={output_padding} must be less than stride={stride} or dilation={dilation}"
        )
    height, width = (
        (n - 1) * s - 2 * p + d * (k - 1) + o + 1
        for n, s, p, o, d, k in zip(x[2:], stride, padding, output_padding, dilation, w[2:])
    )
    if min(height, width) < 1 or min(w[2:]) < 1:
        raise RuntimeError(f"{op}: input {x} and weight {w} would make outputs of {[height, width]}")
    below, right = (o // s for o, s in zip(output_padding, stride))
    return (w[1] * groups, height, width), (below, right), (*stride, *padding, *padding, *dilation, groups)


def _of_integers(x: Tensor, w: Tensor, bias: Tensor | None, sizes: list[int], geometry: tuple[int, ...]) -> Tensor:
    """As conv2d of input with zeros between its elements, with filters turned around: no kernel of its own."""
    (sh, sw), (ph, pw), (dh, dw), groups = geometry[:2], geometry[2:4], geometry[6:8], geometry[8]
    N, C, H, W = x.shape
    spread = x.new_zeros(N, C, (H - 1) * sh + 1, (W - 1) * sw + 1)
    spread[:, :, ::sh, ::sw] = x
    reach_h, reach_w = dh * (w.shape[2] - 1), dw * (w.shape[3] - 1)
    grown = [size - 1 - reach + 2 * p for size, reach, p in zip(sizes, (reach_h, reach_w), (ph, pw))]
    behind = [more + 1 - size for more, size in zip(grown, spread.shape[2:])]  # output_padding
    spread = torch.nn.functional.pad(
        spread, (reach_w - pw, reach_w - pw + behind[1], reach_h - ph, reach_h - ph + behind[0])
    )
    turned = w.unflatten(0, (groups, C // groups)).transpose(1, 2).flatten(0, 1).flip(2, 3)
    ones = (1, 1, 0, 0, 0, 0, dh, dw, groups)
    y: Tensor = autograd.conv2d(spread, turned, bias, ones, AUTO)
    return y


def _numbers(algo: Algo, x: tuple[int, ...], like: Tensor, weight: Tensor, geometry: tuple[int, ...]) -> Numbers:
    """The numbers of the algorithms for a convolution of x [N, C, H, W]."""
    numbers = AUTO if isinstance(algo, str) and algo == "auto" else numbers_for_sizes(algo, x, like, weight, geometry)
    return as_switched(numbers, backend_of(like), like.dtype)


def _padding(op: str, padding: IntOrOne | str, stride: int, kernel_size: int, dilation: int) -> tuple[int, int]:
    """padding (left, right): an odd zero of "same" goes to the right, as torch has it"""
    if not isinstance(padding, str):
        p = single(op, "padding", padding)
        return p, p
    if padding == "valid":
        return 0, 0
    if padding != "same":
        raise RuntimeError(f"{op}: padding={padding!r} must be 'same', 'valid' or a number")
    if stride != 1:
        raise RuntimeError(f"{op}: padding='same' is not supported with stride={stride}, only with stride 1")
    total = dilation * (kernel_size - 1)
    return total // 2, total - total // 2


def _of_height_one(error: RuntimeError, op: str, input: Tensor, weight: Tensor, bias: Tensor | None) -> Exception:
    told = explained(error, op, input=input, weight=weight, bias=bias)
    return type(error)(f"{op}, of images of height 1: {error}") if told is error else told
