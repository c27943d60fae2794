"""convlab's operators (`torch.ops.convlab`, schemas in csrc/ops.cpp), which _load.py has loaded, and their fake
implementations.

The operators are private: no autograd, no autocast, no defaults. `convlab.functional` is the way in. Fakes compute
shapes, dtypes and strides for `torch.compile`, `torch.export` and meta tensors, and must agree with the real operators
exactly.
"""

import math
from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor

from . import libraries
from ._flops import count_flops
from ._load import lab as _lab
from .arguments import is_channels_last, only_contiguous

has_cuda = bool(_lab.build_info()["nvcc"])

conv2d_forward = torch.ops.convlab.conv2d_forward.default
conv2d_dgrad = torch.ops.convlab.conv2d_dgrad.default
conv2d_wgrad = torch.ops.convlab.conv2d_wgrad.default
conv2d_backward = torch.ops.convlab.conv2d_backward.default
conv2d_bias_grad = torch.ops.convlab.conv2d_bias_grad.default
conv2d_block_forward = torch.ops.convlab.conv2d_block_forward.default
conv2d_block_backward = torch.ops.convlab.conv2d_block_backward.default
max_pool2d_forward = torch.ops.convlab.max_pool2d_forward.default
max_pool2d_backward = torch.ops.convlab.max_pool2d_backward.default
max_pool2d_gather = torch.ops.convlab.max_pool2d_gather.default
max_pool2d_indices = torch.ops.convlab.max_pool2d_indices.default
avg_pool2d_forward = torch.ops.convlab.avg_pool2d_forward.default
avg_pool2d_backward = torch.ops.convlab.avg_pool2d_backward.default
adaptive_avg_pool2d_forward = torch.ops.convlab.adaptive_avg_pool2d_forward.default
adaptive_avg_pool2d_backward = torch.ops.convlab.adaptive_avg_pool2d_backward.default
adaptive_max_pool2d_forward = torch.ops.convlab.adaptive_max_pool2d_forward.default
adaptive_max_pool2d_backward = torch.ops.convlab.adaptive_max_pool2d_backward.default
max_unpool2d_forward = torch.ops.convlab.max_unpool2d_forward.default
planes_gather = torch.ops.convlab.planes_gather.default
leaky_relu_forward = torch.ops.convlab.leaky_relu_forward.default
leaky_relu_ = torch.ops.convlab.leaky_relu_.default
leaky_relu_backward = torch.ops.convlab.leaky_relu_backward.default
relu_forward = torch.ops.convlab.relu_forward.default
relu_ = torch.ops.convlab.relu_.default
relu_backward = torch.ops.convlab.relu_backward.default
relu6_forward = torch.ops.convlab.relu6_forward.default
relu6_ = torch.ops.convlab.relu6_.default
relu6_backward = torch.ops.convlab.relu6_backward.default
prelu_scale = torch.ops.convlab.prelu_scale.default
prelu_wgrad = torch.ops.convlab.prelu_wgrad.default
add_activated_ = torch.ops.convlab.add_activated_.default
batch_norm_forward = torch.ops.convlab.batch_norm_forward.default
batch_norm_joined = torch.ops.convlab.batch_norm_joined.default
batch_norm_ = torch.ops.convlab.batch_norm_.default
batch_norm_folded = torch.ops.convlab.batch_norm_folded.default
batch_norm_train = torch.ops.convlab.batch_norm_train.default
batch_norm_train_backward = torch.ops.convlab.batch_norm_train_backward.default
ON_THE_CPU = frozenset(  # alone
    (
        add_activated_,
        batch_norm_forward,
        batch_norm_joined,
        batch_norm_,
        batch_norm_folded,
        batch_norm_train,
        batch_norm_train_backward,
    )
)

ACTIVATIONS = {None: 0, "relu": 1, "leaky_relu": 2, "relu6": 3}  # of a block, by number: csrc/geometry/ending.h
TAP = 127  # the bits of a block's winner that are its tap; the other one: the gradient passes
MOST_TAPS = 128


def window_of(ending: Sequence[int]) -> tuple[int, ...]:
    """A block's pooling as csrc/ops.cpp's `window`"""
    return (*ending[1:], *ending[1:], 0, 0, 1, 1)


ALL = tuple(op for op in globals().values() if isinstance(op, torch._ops.OpOverload))

count_flops(torch.ops.convlab)


def _refuse_cuda(*args: object, **kwargs: object) -> NoReturn:
    raise RuntimeError(
        "convlab: a CUDA tensor, but convlab was built without CUDA because nvcc was not found; install the CUDA toolkit "
        f"(or pip install nvidia-cuda-nvcc) and build again: {libraries.rebuild('CONVLAB_CUDA=1')}"
    )


if not has_cuda:
    for _op in ALL:
        torch.library.impl(_op.name(), "CUDA")(_refuse_cuda)


# ---- fakes ----------------------------------------------------------------------------------------------------------


def _is_channels_last(t: Tensor) -> bool:
    return t.dim() == 4 and is_channels_last(t)


def _check_types(op: str, x: Tensor, **others: Tensor) -> None:
    for name, t in others.items():
        if t.dtype != x.dtype:
            raise RuntimeError(f"{op}: {name} is {t.dtype} but input is {x.dtype}; they must be the same")
        if t.device != x.device:
            raise RuntimeError(
                f"{op}: {name} is on {t.device} but input is on {x.device}; they must be on the same device"
            )


def _empty(shape: Sequence[int], like: Tensor, channels_last: bool = False, dtype: torch.dtype | None = None) -> Tensor:
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(shape, dtype=dtype or like.dtype, device=like.device, memory_format=memory_format)


@torch.library.register_fake("convlab::conv2d_forward")
def _(x: Tensor, w: Tensor, bias: Tensor | None, geometry: Sequence[int], algo: int) -> Tensor:
    stride, padding, dilation, groups = geometry[:2], geometry[2:6], geometry[6:8], geometry[8]
    torch._check(
        x.dim() == 4 and w.dim() == 4, lambda: f"conv2d: input {x.shape} and weight {w.shape} must have four dimensions"
    )
    torch._check(
        x.shape[1] == w.shape[1] * groups,
        lambda: f"conv2d: input {x.shape} does not fit weight {w.shape} with groups={groups}",
    )
    torch._check(
        w.shape[0] % groups == 0,
        lambda: f"conv2d: weight {w.shape} makes {w.shape[0]} channels, which groups={groups} does not divide",
    )
    _check_types("conv2d", x, weight=w, **({} if bias is None else {"bias": bias}))
    if bias is not None:
        torch._check(
            bias.dim() == 1 and bias.shape[0] == w.shape[0],
            lambda: f"conv2d: bias is {bias.shape}, expected [{w.shape[0]}]",
        )
    outputs = []
    for d in range(2):
        torch._check(
            stride[d] > 0 and dilation[d] > 0 and padding[d] >= 0,
            lambda: f"conv2d: stride={stride}, padding={padding}, dilation={dilation}",
        )
        room = x.shape[2 + d] + padding[d] + padding[2 + d] - dilation[d] * (w.shape[2 + d] - 1) - 1
        torch._check(
            room >= 0, lambda: f"conv2d: the kernel (weight {w.shape}) is larger than the padded input {x.shape}"
        )
        outputs.append(room // stride[d] + 1)
    return _empty((x.shape[0], w.shape[0], *outputs), x, _is_channels_last(x) or _is_channels_last(w))


@torch.library.register_fake("convlab::conv2d_dgrad")
def _(
    dy: Tensor,
    w: Tensor,
    input_size: Sequence[int],
    geometry: Sequence[int],
    channels_last: bool,
    algo: int,
    bias: Tensor | None = None,
) -> Tensor:
    return _empty((dy.shape[0], w.shape[1] * geometry[8], *input_size), dy, channels_last)


@torch.library.register_fake("convlab::conv2d_wgrad")
def _(
    dy: Tensor,
    x: Tensor,
    kernel_size: Sequence[int],
    geometry: Sequence[int],
    with_bias: bool,
    channels_last: bool,
    algo: int,
) -> tuple[Tensor, Tensor]:
    dw = _empty((dy.shape[1], x.shape[1] // geometry[8], *kernel_size), dy, channels_last)
    return dw, _empty((dy.shape[1] if with_bias else 0,), dy)


@torch.library.register_fake("convlab::conv2d_backward")
def _(
    dy: Tensor,
    x: Tensor,
    w: Tensor,
    geometry: Sequence[int],
    with_bias: bool,
    dgrad_algo: int,
    wgrad_algo: int,
) -> tuple[Tensor, Tensor, Tensor]:
    channels_last = _is_channels_last(x) or _is_channels_last(w)
    dx = conv2d_dgrad(dy, w, x.shape[2:], geometry, channels_last, dgrad_algo)
    dw_channels_last = channels_last and not only_contiguous(w)
    return dx, *conv2d_wgrad(dy, x, w.shape[2:], geometry, with_bias, dw_channels_last, wgrad_algo)


@torch.library.register_fake("convlab::conv2d_bias_grad")
def _(dy: Tensor) -> Tensor:
    return _empty((dy.shape[1],), dy)


@torch.library.register_fake("convlab::conv2d_block_forward")
def _(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None,
    geometry: Sequence[int],
    ending: Sequence[int],
    negative_slope: float,
    with_winners: bool,
    algo: int,
) -> tuple[Tensor, Tensor]:
    full = conv2d_forward(x, w, bias, geometry, algo)
    y, winners = max_pool2d_forward(full, window_of(ending), False, with_winners)
    return y, winners.contiguous() if x.device.type == "cuda" else winners  # there blocks are made in NCHW


@torch.library.register_fake("convlab::conv2d_block_backward")
def _(
    dy: Tensor,
    winners: Tensor,
    x: Tensor | None,
    w: Tensor | None,
    input_size: Sequence[int],
    kernel_size: Sequence[int],
    geometry: Sequence[int],
    ending: Sequence[int],
    negative_slope: float,
    with_bias: bool,
    dx_channels_last: bool,
    dw_channels_last: bool,
    algo: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor]:
    groups = geometry[8]
    none = _empty((0,), dy)
    dx = none if w is None else _empty((dy.shape[0], w.shape[1] * groups, *input_size), dy, dx_channels_last)
    dw = none if x is None else _empty((dy.shape[1], x.shape[1] // groups, *kernel_size), dy, dw_channels_last)
    return dx, dw, _empty((dy.shape[1] if with_bias else 0,), dy)


def _pool_outputs(size: int, pad: int, kernel: int, stride: int, dilation: int, ceil_mode: bool) -> int:
    outputs = (size + 2 * pad - dilation * (kernel - 1) - 1 + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode and (outputs - 1) * stride >= size + pad:
        outputs = outputs - 1  # the last window must start inside x or its left padding
    torch._check(
        outputs >= 1,
        lambda: f"pooling: a window of {kernel} (dilation={dilation}) is larger than {size} padded by {pad}",
    )
    return outputs


def _pooled(op: str, x: Tensor, window: Sequence[int], ceil_mode: bool) -> Tensor:
    torch._check(x.dim() == 4, lambda: f"{op}: input must be [N, C, H, W], got {x.shape}")
    torch._check(len(window) == 8, lambda: f"{op}: window has {len(window)} values, expected 8")
    kernel_size, stride, padding, dilation = (window[i : i + 2] for i in range(0, 8, 2))
    outputs = (
        _pool_outputs(x.shape[2 + d], padding[d], kernel_size[d], stride[d], dilation[d], ceil_mode) for d in range(2)
    )
    return _empty((*x.shape[:2], *outputs), x, _is_channels_last(x))


@torch.library.register_fake("convlab::max_pool2d_forward")
def _(
    x: Tensor,
    window: Sequence[int],
    ceil_mode: bool,
    with_offsets: bool,
) -> tuple[Tensor, Tensor]:
    y = _pooled("max_pool2d", x, window, ceil_mode)
    dtype = torch.uint8 if window[0] * window[1] <= 256 else torch.int32
    return y, _empty(y.shape if with_offsets else (0,), x, with_offsets and _is_channels_last(x), dtype)


@torch.library.register_fake("convlab::max_pool2d_backward")
def _(
    dy: Tensor,
    offsets: Tensor,
    input_size: Sequence[int],
    window: Sequence[int],
    channels_last: bool,
) -> Tensor:
    return _empty((*dy.shape[:2], *input_size), dy, channels_last)


@torch.library.register_fake("convlab::max_pool2d_gather")
def _(
    x: Tensor,
    offsets: Tensor,
    window: Sequence[int],
) -> Tensor:
    return _empty(offsets.shape, x, _is_channels_last(x))


@torch.library.register_fake("convlab::max_pool2d_indices")
def _(
    offsets: Tensor,
    input_size: Sequence[int],
    window: Sequence[int],
) -> Tensor:
    return _empty(offsets.shape, offsets, _is_channels_last(offsets), torch.int64)


@torch.library.register_fake("convlab::avg_pool2d_forward")
def _(
    x: Tensor,
    window: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int,
) -> Tensor:
    return _pooled("avg_pool2d", x, window, ceil_mode)


@torch.library.register_fake("convlab::avg_pool2d_backward")
def _(
    dy: Tensor,
    input_size: Sequence[int],
    window: Sequence[int],
    count_include_pad: bool,
    divisor: int,
    channels_last: bool,
) -> Tensor:
    return _empty((*dy.shape[:2], *input_size), dy, channels_last)


def _like(x: Tensor) -> Tensor:
    """What torch's element-wise operators make of x."""
    if x.is_contiguous():
        return torch.empty_like(x, memory_format=torch.contiguous_format)
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return torch.empty_like(x, memory_format=torch.channels_last)
    return torch.empty_like(x)


def bools_of(bits: Tensor, shape: Sequence[int], channels_last: bool) -> Tensor:
    """Where leaky ReLU's x was positive, of this shape, of the bits that its forward keeps"""
    flat = (bits[:, None] >> torch.arange(8, dtype=torch.uint8, device=bits.device) & 1).flatten().bool()
    flat = flat[: math.prod(shape)]
    if not channels_last:
        return flat.view(*shape)
    n, c, h, w = shape
    return flat.view(n, h, w, c).permute(0, 3, 1, 2)


@torch.library.register_fake("convlab::leaky_relu_forward")
def _(x: Tensor, negative_slope: float, with_positive: bool, as_bits: bool = False) -> tuple[Tensor, Tensor]:
    if not with_positive:
        return _like(x), x.new_empty(0, dtype=torch.bool)
    whole = x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))
    if as_bits and whole:
        return _like(x), x.new_empty((x.numel() + 7) // 8, dtype=torch.uint8)
    return _like(x), torch.empty_like(x, dtype=torch.bool)


@torch.library.register_fake("convlab::leaky_relu_")
def _(x: Tensor, negative_slope: float, with_positive: bool, as_bits: bool = False) -> Tensor:
    positive: Tensor = leaky_relu_forward(x, negative_slope, with_positive, as_bits)[1]
    return positive


@torch.library.register_fake("convlab::leaky_relu_backward")
def _(dy: Tensor, positive: Tensor, negative_slope: float, channels_last: bool = False) -> Tensor:
    if positive.dtype is torch.uint8:
        return _empty(dy.shape, dy, channels_last)
    return torch.empty_like(positive, dtype=dy.dtype)


@torch.library.register_fake("convlab::relu_forward")
def _(x: Tensor) -> Tensor:
    return _like(x)


@torch.library.register_fake("convlab::relu_")
def _(x: Tensor) -> None:
    pass


@torch.library.register_fake("convlab::relu_backward")
def _(dy: Tensor, y: Tensor) -> Tensor:
    return _like(y)


@torch.library.register_fake("convlab::relu6_forward")
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


@torch.library.register_fake("convlab::relu6_")
def _(x: Tensor) -> None:
    pass


@torch.library.register_fake("convlab::relu6_backward")
def _(dy: Tensor, y: Tensor) -> Tensor:
    return _like(y)


@torch.library.register_fake("convlab::prelu_scale")
def _(t: Tensor, x: Tensor, w: Tensor, keep: bool) -> Tensor:
    return _like(x)


@torch.library.register_fake("convlab::prelu_wgrad")
def _(dy: Tensor, t: Tensor, x: Tensor, channels: int) -> Tensor:
    return x.new_empty(channels)


@torch.library.register_fake("convlab::add_activated_")
def _(x: Tensor, *_: object) -> None:
    pass


@torch.library.register_fake("convlab::batch_norm_forward")
def _(x: Tensor, *_: object) -> Tensor:
    return _like(x)


@torch.library.register_fake("convlab::batch_norm_joined")
def _(parts: Sequence[Tensor], *_: object) -> Tensor:
    sizes = list(parts[0].shape)
    sizes[1] = sum(part.shape[1] for part in parts)
    one_layout = sizes[1] == 1 or math.prod(sizes[2:]) == 1
    return _empty(sizes, parts[0], all(map(_is_channels_last, parts)) and not one_layout)


@torch.library.register_fake("convlab::batch_norm_")
def _(x: Tensor, *_: object) -> None:
    pass


@torch.library.register_fake("convlab::batch_norm_folded")
def _(
    w: Tensor, bias: Tensor | None, mean: Tensor, var: Tensor, gamma: Tensor | None, beta: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(w), torch.empty_like(mean)


@torch.library.register_fake("convlab::batch_norm_train")
def _(x: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    return _like(x), x.new_empty(4, x.shape[1])


@torch.library.register_fake("convlab::batch_norm_train_backward")
def _(dy: Tensor, x: Tensor, *_: object) -> tuple[Tensor, Tensor, Tensor]:
    return _like(x), x.new_empty(x.shape[1]), x.new_empty(x.shape[1])


@torch.library.register_fake("convlab::adaptive_avg_pool2d_forward")
def _(x: Tensor, output_size: Sequence[int]) -> Tensor:
    return _empty((*x.shape[:2], *output_size), x, _is_channels_last(x))


@torch.library.register_fake("convlab::adaptive_avg_pool2d_backward")
def _(dy: Tensor, input_size: Sequence[int], channels_last: bool) -> Tensor:
    return _empty((*dy.shape[:2], *input_size), dy, channels_last)


@torch.library.register_fake("convlab::adaptive_max_pool2d_forward")
def _(x: Tensor, output_size: Sequence[int]) -> tuple[Tensor, Tensor]:
    y = _empty((*x.shape[:2], *output_size), x, _is_channels_last(x))
    return y, torch.empty_like(y, dtype=torch.int64)


@torch.library.register_fake("convlab::adaptive_max_pool2d_backward")
def _(dy: Tensor, indices: Tensor, input_size: Sequence[int], channels_last: bool) -> Tensor:
    return _empty((*dy.shape[:2], *input_size), dy, channels_last)


@torch.library.register_fake("convlab::max_unpool2d_forward")
def _(x: Tensor, indices: Tensor, output_size: Sequence[int], channels_last: bool) -> Tensor:
    return _empty((*x.shape[:2], *output_size), x, channels_last)


@torch.library.register_fake("convlab::planes_gather")
def _(x: Tensor, indices: Tensor, channels_last: bool) -> Tensor:
    return _empty(indices.shape, x, channels_last)
