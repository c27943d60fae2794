"""torch.nn.functional's signatures over convlab's kernels."""

import torch

from . import autograd, ops
from .algorithms import Conv2dProblem, numbers_of
from .arguments import check_tensors, padding4, pair
from .simulator import backend_of


def conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, *, algo="auto"):
    """2-D convolution, as `torch.nn.functional.conv2d`.

    input: [N, C, H, W] or [C, H, W]; weight: [K, C/groups, R, S]; bias: [K] or None. All of one dtype: float32, float64, or
    float16 / bfloat16, which are summed in float32. Under autocast they are cast to its dtype first.
    stride, dilation: int or (height, width). padding: int, (height, width), "valid", or "same" (stride 1 only).
    algo: "auto", the name of one of `convlab.algorithms()`, or a dict such as {"forward": "direct", "wgrad": "reference"}. A name
    applies to the passes that algorithm has; a dict is strict for what it names.

    Returns [N, K, P, Q] or [K, P, Q], with P = floor((H + 2 padding - dilation (R - 1) - 1) / stride) + 1 and Q alike; in
    channels_last if input or weight is.

    Raises RuntimeError for arguments that do not fit together, TypeError for arguments of the wrong type, ValueError for an algo
    that is unknown or cannot do this problem.
    """
    check_tensors("conv2d", input=input, weight=weight)
    if bias is not None:
        check_tensors("conv2d", bias=bias)
    if not isinstance(groups, (int, torch.SymInt)):
        raise TypeError(f"conv2d: groups must be an int, got {groups!r}")
    if input.dim() == 3:
        return conv2d(input.unsqueeze(0), weight, bias, stride, padding, dilation, groups, algo=algo).squeeze(0)
    if input.dim() != 4 or weight.dim() != 4:
        raise RuntimeError(
            f"conv2d: input must be [N, C, H, W] or [C, H, W] and weight [K, C/groups, R, S], got {tuple(input.shape)} and {tuple(weight.shape)}"
        )
    device = input.device.type
    if torch.is_autocast_enabled(device):
        input, weight, bias = _autocast(device, input, weight, bias)
    stride, dilation = pair("conv2d", "stride", stride), pair("conv2d", "dilation", dilation)
    sides = padding4(padding, stride, weight.shape[2:], dilation)
    numbers = numbers_of(algo, backend_of(input), lambda: Conv2dProblem.of(input, weight, stride, padding, dilation, groups))
    return autograd.apply(autograd.Conv2dForward, input, weight, bias, autograd.ConvArguments(stride, sides, dilation, groups, numbers))


def max_pool2d(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    """2-D max pooling, as `torch.nn.functional.max_pool2d`.

    input: [N, C, H, W] or [C, H, W], float32, float64, float16 or bfloat16. The other arguments are ints or (height, width);
    stride defaults to kernel_size; padding is at most half of kernel_size and never wins. NaN wins over everything.

    Returns [N, C, P, Q] or [C, P, Q]; with return_indices also the int64 positions h * W + w of the winners. A window's winner is
    remembered in one byte for the backward pass (four bytes for windows of more than 256 elements).

    Raises RuntimeError for arguments that do not fit together, TypeError for arguments of the wrong type.
    """
    check_tensors("max_pool2d", input=input)
    if input.dim() == 3:
        result = max_pool2d(input.unsqueeze(0), kernel_size, stride, padding, dilation, ceil_mode, return_indices)
        return tuple(t.squeeze(0) for t in result) if return_indices else result.squeeze(0)
    if input.dim() != 4:
        raise RuntimeError(f"max_pool2d: input must be [N, C, H, W] or [C, H, W], got {tuple(input.shape)}")
    kernel_size, stride = _window("max_pool2d", kernel_size, stride)
    arguments = autograd.PoolArguments(
        kernel_size,
        stride,
        pair("max_pool2d", "padding", padding),
        pair("max_pool2d", "dilation", dilation),
    )
    if not return_indices and not _differentiated(input):
        return ops.max_pool2d_forward(input, *arguments, ceil_mode, False)[0]
    y, offsets = autograd.apply(autograd.MaxPool2d, input, ceil_mode, arguments)
    if not return_indices:
        return y
    indices = ops.max_pool2d_indices(offsets, input.shape[2:], *arguments)
    return y, torch.empty_like(y, dtype=torch.int64).copy_(indices)  # in y's layout, as torch has them


def avg_pool2d(input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None):
    """2-D average pooling, as `torch.nn.functional.avg_pool2d`.

    input: [N, C, H, W] or [C, H, W], float32, float64, float16 or bfloat16. kernel_size, stride (defaults to kernel_size) and
    padding are ints or (height, width); padding is at most half of kernel_size. Sums are divided by the elements of the window,
    zeros of the padding among them if count_include_pad, or by divisor_override.

    Returns [N, C, P, Q] or [C, P, Q]. Raises RuntimeError for arguments that do not fit together, TypeError for arguments of the
    wrong type.
    """
    check_tensors("avg_pool2d", input=input)
    if input.dim() == 3:
        return avg_pool2d(input.unsqueeze(0), kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override).squeeze(0)
    if input.dim() != 4:
        raise RuntimeError(f"avg_pool2d: input must be [N, C, H, W] or [C, H, W], got {tuple(input.shape)}")
    if divisor_override is not None and not isinstance(divisor_override, (int, torch.SymInt)):
        raise TypeError(f"avg_pool2d: divisor_override must be an int or None, got {divisor_override!r}")
    if divisor_override == 0:
        raise RuntimeError("avg_pool2d: divisor_override=0 must not be zero; leave it out to divide by the window's size")
    kernel_size, stride = _window("avg_pool2d", kernel_size, stride)
    arguments = autograd.AvgPoolArguments(
        kernel_size, stride, pair("avg_pool2d", "padding", padding), ceil_mode, count_include_pad, divisor_override or 0
    )
    return autograd.apply(autograd.AvgPool2d, input, arguments)


def leaky_relu(input, negative_slope=0.01, inplace=False):
    """x where x > 0, else x * negative_slope, as `torch.nn.functional.leaky_relu`.

    input: any shape; float32, float64, float16 or bfloat16. inplace overwrites and returns it; its gradient then needs
    negative_slope >= 0 (RuntimeError from backward otherwise).
    """
    check_tensors("leaky_relu", input=input)
    if _differentiated(input):
        y = autograd.apply(autograd.LeakyReLU, input, negative_slope, inplace)[0]
    else:
        y = ops.leaky_relu_forward(input, negative_slope, False)[0]
    return input.copy_(y) if inplace else y


def relu(input, inplace=False):
    """x where x > 0, else 0, as `torch.nn.functional.relu`: NaN stays NaN, -inf becomes 0.

    input: any shape; float32, float64, float16 or bfloat16. inplace overwrites and returns it.
    """
    check_tensors("relu", input=input)
    y = autograd.apply(autograd.ReLU, input)
    return input.copy_(y) if inplace else y


def _differentiated(x) -> bool:
    """Whether somebody can ask for a derivative, forward-mode ones among them: those are refused by `.apply`, and must get there."""
    return autograd.forward_ad._current_level >= 0 or (torch.is_grad_enabled() and x.requires_grad)


def _window(op: str, kernel_size, stride):
    """A pooling's kernel_size and stride, which defaults to it, as pairs."""
    kernel_size = pair(op, "kernel_size", kernel_size)
    no_stride = stride is None or (isinstance(stride, (tuple, list)) and not stride)
    return kernel_size, kernel_size if no_stride else pair(op, "stride", stride)


def _autocast(device: str, *tensors):
    """What autocast does to a convolution's tensors: its dtype for every floating one but float64."""
    dtype = torch.get_autocast_dtype(device)

    def cast(t):
        eligible = t is not None and t.is_floating_point() and t.dtype != torch.float64
        return t.to(dtype) if eligible else t

    return map(cast, tensors)
