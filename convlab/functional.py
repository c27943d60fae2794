"""torch.nn.functional's signatures over convlab's kernels."""

import math
from typing import Literal, overload

import torch
from torch import Tensor
from torch.overrides import has_torch_function_unary, has_torch_function_variadic

from . import autograd, ops
from ._activations import prelu as prelu
from ._activations import relu as relu
from ._activations import relu6 as relu6
from ._algorithms import AUTO, Algo, as_switched, numbers_for
from ._convolutions import conv1d as conv1d
from ._convolutions import conv_transpose1d as conv_transpose1d
from ._convolutions import conv_transpose2d as conv_transpose2d
from ._fast_apply import needs_autograd
from ._inputs import autocast as _autocast
from ._inputs import check_convolution, is_nothing
from ._inputs import check_input as _check_input
from ._overrides import explained, overridden
from ._poolings import adaptive_avg_pool1d as adaptive_avg_pool1d
from ._poolings import adaptive_avg_pool2d as adaptive_avg_pool2d
from ._poolings import adaptive_max_pool1d as adaptive_max_pool1d
from ._poolings import adaptive_max_pool2d as adaptive_max_pool2d
from ._poolings import averaged, max_pooled
from ._poolings import avg_pool1d as avg_pool1d
from ._poolings import max_pool1d as max_pool1d
from ._poolings import max_unpool2d as max_unpool2d
from .arguments import (
    SIGNED_OR_BYTE,
    IntOrPair,
    check_device,
    check_dtype,
    convolution,
    flag,
    integer,
    pair,
    pooling_window,
    size_and_stride,
    slope,
)
from .simulator import backend_of

for _function in (
    *(adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_max_pool1d, adaptive_max_pool2d, avg_pool1d, max_pool1d),
    *(conv1d, conv_transpose1d, conv_transpose2d, max_unpool2d, prelu, relu, relu6),
):
    _function.__module__ = __name__  # as torch's errors, graphs and pickles name them


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrPair = 1,
    padding: IntOrPair | str = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    *,
    algo: Algo = "auto",
) -> Tensor:
    """2-D convolution, as `torch.nn.functional.conv2d`.

    input: [N, C, H, W] or [C, H, W]; weight: [K, C/groups, R, S]; bias: [K] or None. All of one dtype: float32,
    float64, or float16 / bfloat16, which are summed in float32; on the CPU also uint8 and int8 to int64 (dilated, int64
    alone). Under autocast they are cast to its dtype first.
    stride, dilation: int or (height, width). padding: int, (height, width), "valid", or "same" (stride 1 only).
    algo: "auto", the name of one of `convlab.algorithms()`, or a dict such as {"forward": "direct", "wgrad":
    "reference"}. A name applies to the passes that algorithm has; a dict is strict for what it names.
    On the CPU "auto" takes winograd_2x2 for float32 where it is faster, unless
    torch.backends.mkldnn.conv.fp32_precision is "ieee", and winograd_4x4 where that is "tf32" or "bf16". Rounding is
    then shared by a tile of outputs: small ones beside large ones are less exact, and with winograd_4x4 exact zeros
    become 1e-6. With "bf16", on a CPU with AMX, amx rounds what is multiplied to bfloat16.
    On a GPU, tensor_core makes float32 of three TF32 products, or of one where torch allows its own convolutions TF32:
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.conv.fp32_precision and what that inherits. A backward has the
    switches as its forward found them.

    Returns [N, K, P, Q] or [K, P, Q], with P = floor((H + 2 padding - dilation (R - 1) - 1) / stride) + 1 and Q alike;
    in channels_last if input or weight is.

    Raises RuntimeError for arguments that do not fit together, TypeError for arguments of the wrong type, ValueError
    for an algo that is unknown or cannot do this problem, NotImplementedError for dtypes, devices and storages without
    kernels.
    """
    if has_torch_function_variadic(input, weight, bias) and not torch.compiler.is_compiling():
        tensors = (input, weight, bias)
        return overridden(conv2d, tensors, *tensors, stride, padding, dilation, groups, algo=algo)
    if not (isinstance(input, Tensor) and isinstance(weight, Tensor) and (bias is None or isinstance(bias, Tensor))):
        check_convolution("conv2d", input, weight, bias)
    if input.dim() != 4 or weight.dim() != 4:
        if input.dim() == 3 and weight.dim() == 4:
            return conv2d(input.unsqueeze(0), weight, bias, stride, padding, dilation, groups, algo=algo).squeeze(0)
        raise RuntimeError(
            f"conv2d: input must be [N, C, H, W] or [C, H, W] and weight [K, C/groups, R, S], got {tuple(input.shape)} and {tuple(weight.shape)}"
        )
    if is_nothing(input) and algo == "auto":
        return torch.nn.functional.conv2d(input, weight, bias, stride, padding, dilation, groups)
    input, weight, bias, geometry, numbers = _prepared(input, weight, bias, stride, padding, dilation, groups, algo)
    try:
        return autograd.conv2d(input, weight, bias, geometry, numbers)
    except RuntimeError as error:  # of which NotImplementedError is one
        raise explained(error, "conv2d", input=input, weight=weight, bias=bias) from None


def conv2d_block(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrPair = 1,
    padding: IntOrPair | str = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    *,
    activation: Literal["relu", "leaky_relu", "relu6"] | None = None,
    negative_slope: float = 0.01,
    pool: IntOrPair | None = None,
    algo: Algo = "auto",
) -> Tensor:
    """`conv2d`, then `relu`, `leaky_relu` or `relu6`, then `max_pool2d`, in one call, with the bits of these three.

    input to groups, and algo: as of `conv2d`; "auto" takes what it takes for the convolution alone.
    activation: None, "relu", "relu6" or "leaky_relu", whose slope is negative_slope.
    pool: None, or the window of a max pooling, int or (height, width), whose stride is the window; rows and columns
    that fill no window are left out.

    Returns [N, K, P, Q] or [K, P, Q], P and Q those of `conv2d`, divided by the window and rounded down; in
    channels_last if input or weight is. For the backward pass, input, weight and one byte a window are remembered (five
    bytes for windows of more than 128 elements): which element won, and whether the activation passes its gradient.

    Raises what the three raise, and ValueError for another activation.
    """
    if has_torch_function_variadic(input, weight, bias) and not torch.compiler.is_compiling():
        tensors = (input, weight, bias)
        return overridden(
            conv2d_block,
            tensors,
            *tensors,
            stride,
            padding,
            dilation,
            groups,
            activation=activation,
            negative_slope=negative_slope,
            pool=pool,
            algo=algo,
        )
    if activation not in ops.ACTIVATIONS:
        raise ValueError(f"conv2d_block: activation={activation!r} must be None, 'relu', 'leaky_relu' or 'relu6'")
    window = (1, 1) if pool is None else pair("conv2d_block", "pool", pool)
    if min(window) < 1:
        raise RuntimeError(f"conv2d_block: pool={pool!r} must be None, or a window of at least 1 x 1")
    check_convolution("conv2d_block", input, weight, bias)
    if type(negative_slope) is not float or not -1e38 < negative_slope < 1e38:
        negative_slope = slope("conv2d_block", negative_slope, input.dtype)
    if input.dim() == 3 and weight.dim() == 4:
        return conv2d_block(
            input.unsqueeze(0),
            weight,
            bias,
            stride,
            padding,
            dilation,
            groups,
            activation=activation,
            negative_slope=negative_slope,
            pool=pool,
            algo=algo,
        ).squeeze(0)
    if (
        (activation is None and window == (1, 1))
        or input.dim() != 4
        or weight.dim() != 4
        or not input.is_floating_point()
        or is_nothing(input)
        or window[0] * window[1] > ops.MOST_TAPS
        or not math.isfinite(negative_slope)  # whose product with a gradient of zero is none
    ):
        y = conv2d(input, weight, bias, stride, padding, dilation, groups, algo=algo)
        if activation == "leaky_relu":
            y = leaky_relu(y, negative_slope)
        elif activation:
            y = relu(y) if activation == "relu" else relu6(y)
        return y if window == (1, 1) else max_pool2d(y, window)
    input, weight, bias, geometry, numbers = _prepared(input, weight, bias, stride, padding, dilation, groups, algo)
    arguments = autograd.BlockArguments(geometry, numbers, (ops.ACTIVATIONS[activation], *window), negative_slope)
    try:
        return autograd.conv2d_block(input, weight, bias, arguments)
    except RuntimeError as error:
        raise explained(error, "conv2d_block", input=input, weight=weight, bias=bias) from None


@overload
def max_pool2d(
    input: Tensor,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
    return_indices: Literal[False] = False,
) -> Tensor: ...


@overload
def max_pool2d(
    input: Tensor,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
    *,
    return_indices: Literal[True],
) -> tuple[Tensor, Tensor]: ...


@overload
def max_pool2d(
    input: Tensor,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]: ...


def max_pool2d(
    input: Tensor,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """2-D max pooling, as `torch.nn.functional.max_pool2d`.

    input: [N, C, H, W] or [C, H, W], float32, float64, float16 or bfloat16; on the CPU also uint8 and int8 to int64.
    The other arguments are ints or (height, width); stride defaults to kernel_size; padding is at most half of
    kernel_size and never wins; dilation is the distance of a window's taps; ceil_mode keeps a last window that reaches
    beyond the padding. NaN wins over everything.

    Returns [N, C, P, Q] or [C, P, Q]; with return_indices also the int64 positions h * W + w of the winners. A window's
    winner is remembered in one byte for the backward pass (four bytes for windows of more than 256 elements).

    Raises RuntimeError for arguments that do not fit together, TypeError for arguments of the wrong type.
    """
    if has_torch_function_unary(input) and not torch.compiler.is_compiling():
        return overridden(
            max_pool2d,
            (input,),
            input,
            kernel_size,
            stride,
            padding,
            dilation,
            ceil_mode,
            return_indices=return_indices,
        )
    _check_input("max_pool2d", input, SIGNED_OR_BYTE)
    if input.dim() == 3:
        result = max_pool2d(input.unsqueeze(0), kernel_size, stride, padding, dilation, ceil_mode, return_indices)
        if isinstance(result, tuple):
            return result[0].squeeze(0), result[1].squeeze(0)
        return result.squeeze(0)
    if input.dim() != 4:
        raise RuntimeError(f"max_pool2d: input must be [N, C, H, W] or [C, H, W], got {tuple(input.shape)}")
    ceil_mode = flag("max_pool2d", "ceil_mode", ceil_mode)
    window = pooling_window("max_pool2d", kernel_size, stride, padding, dilation)
    return max_pooled("max_pool2d", input, window, ceil_mode, return_indices)


def avg_pool2d(
    input: Tensor,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """2-D average pooling, as `torch.nn.functional.avg_pool2d`.

    input: [N, C, H, W] or [C, H, W], float32, float64, float16 or bfloat16; on the CPU also int64, rounded towards
    zero. kernel_size, stride (defaults to kernel_size) and padding are ints or (height, width); padding is at most half
    of kernel_size. ceil_mode is as for `max_pool2d`. Sums are divided by the elements of the window, zeros of the padding among them if
    count_include_pad, or by divisor_override.

    Returns [N, C, P, Q] or [C, P, Q]. Raises RuntimeError for arguments that do not fit together, TypeError for
    arguments of the wrong type.
    """
    if torch.compiler.is_compiling():  # the compiler makes a loop with what is around it
        size, step = size_and_stride("avg_pool2d", kernel_size, stride, pair)
        padding = pair("avg_pool2d", "padding", padding)
        return torch.nn.functional.avg_pool2d(
            input, size, step, padding, ceil_mode, count_include_pad, divisor_override
        )
    if has_torch_function_unary(input):
        return overridden(
            avg_pool2d, (input,), input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
        )
    _check_input("avg_pool2d", input, frozenset((torch.int64,)))
    if input.dim() == 3:
        return avg_pool2d(
            input.unsqueeze(0), kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
        ).squeeze(0)
    if input.dim() != 4:
        raise RuntimeError(f"avg_pool2d: input must be [N, C, H, W] or [C, H, W], got {tuple(input.shape)}")
    divisor = 0 if divisor_override is None else integer("avg_pool2d", "divisor_override", divisor_override)
    if divisor_override is not None and divisor == 0:
        raise RuntimeError(
            "avg_pool2d: divisor_override=0 must not be zero; leave it out to divide by the window's size"
        )
    arguments = autograd.AvgPoolArguments(
        pooling_window("avg_pool2d", kernel_size, stride, padding),
        flag("avg_pool2d", "ceil_mode", ceil_mode),
        flag("avg_pool2d", "count_include_pad", count_include_pad),
        divisor,
    )
    return averaged("avg_pool2d", input, arguments)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where x > 0, else x * negative_slope, as `torch.nn.functional.leaky_relu`.

    input: any shape; float32, float64, float16 or bfloat16. inplace overwrites and returns it; its gradient then needs
    negative_slope >= 0 (RuntimeError from backward otherwise).
    """
    if torch.compiler.is_compiling():  # the compiler makes a loop with what is around it
        return torch.nn.functional.leaky_relu(input, negative_slope, inplace)
    if has_torch_function_unary(input):
        return overridden(leaky_relu, (input,), input, negative_slope, inplace=inplace)
    _check_input("leaky_relu", input)
    if type(negative_slope) is not float or not -1e38 < negative_slope < 1e38:
        negative_slope = slope("leaky_relu", negative_slope, input.dtype)
    try:
        if inplace:
            return autograd.in_place(autograd.LeakyReLU, input, negative_slope, True, True)
        if needs_autograd(input):
            return autograd.record(autograd.LeakyReLU, input, negative_slope, False, True)[0]
        return ops.leaky_relu_forward(input, negative_slope, False)[0]
    except NotImplementedError as error:
        raise explained(error, "leaky_relu", input=input) from None


def _prepared(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: IntOrPair,
    padding: IntOrPair | str,
    dilation: IntOrPair,
    groups: int,
    algo: Algo,
) -> tuple[Tensor, Tensor, Tensor | None, tuple[int, ...], tuple[int, ...]]:
    """A convolution's tensors, as autocast wants them, its arguments as operators take them, and the numbers of its
    algorithms, by pass."""
    geometry: tuple[int, ...]
    on_cpu = input.is_cpu
    if on_cpu or input.is_cuda:
        device = "cpu" if on_cpu else "cuda"
        if torch.is_autocast_enabled(device):
            input, weight, bias = _autocast(device, input, weight, bias)
    if (
        type(stride) is type(padding) is type(dilation) is type(groups) is int
        and (stride | padding | dilation | groups) < 2**31
    ):
        geometry = (stride, stride, padding, padding, padding, padding, dilation, dilation, groups)
    else:
        geometry = convolution(stride, padding, dilation, groups, weight.shape[2:])
    backend = backend_of(input)
    if not on_cpu or input.dtype is not torch.float32:
        check_device("conv2d", input)
        check_dtype("conv2d", input, SIGNED_OR_BYTE, backend)
        if not input.is_floating_point() and input.dtype is not torch.int64 and geometry[6:8] != (1, 1):
            raise NotImplementedError(
                f"conv2d: dilation={dilation} with {input.dtype}: of the integers, only int64 has it"
            )
    numbers = AUTO if algo == "auto" else numbers_for(algo, input, weight, geometry)
    numbers = as_switched(numbers, backend, input.dtype)
    return input, weight, bias, geometry, numbers
