"""What runs where `fuse` found a chain: one call of conv2d_block where the layers are as they were, else one after
another.

A chain is a convolution and what follows it: batch normalization, an activation, a max pooling; or it begins with batch
normalization, and torch.cat before it. Whether it can be one call is asked at every forward, so that hooks, parametrizations
and other layers put in their places later count. In training normalization and activation alone are one, on the CPU.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.modules.module import _has_any_global_hook

from . import functional, modules, ops, simulator
from ._batch_norm import Arguments, batch_norm
from ._fast_apply import is_watched, needs_autograd
from ._modules_around import ReLU6

Activation: TypeAlias = "Module | tuple[str, float] | None"  # a layer, or a function's name and its slope
Pooling: TypeAlias = "Module | tuple[Any, ...] | None"  # a layer, or kernel_size, stride, padding, dilation, ceil_mode

# Called with the parts of each chain and its input, just before it runs as one: how `summary` sees chains.
observers: list[Callable[[modules.ConvBlock2d, tuple[Any, ...], Tensor], None]] = []


class Observer:
    """A forward pre-hook that only looks, and keeps no chain from running as one."""

    def __init__(self, call: Callable[..., None]) -> None:
        self.call = call

    def __call__(self, *args: Any) -> None:
        self.call(*args)


def fused(input: Tensor, conv: Any, norm: Any, activation: Activation, pool: Pooling, pool_first: bool) -> Any:
    """The chain of `input`: by one call, unless `why_not` has a reason. conv: None where the chain begins with `norm`.
    pool_first: the pooling comes before the activation."""
    if reason := why_not(conv, norm, activation, pool, pool_first):
        run = _trained if reason is OF_THE_BATCH and not observers else _one_by_one
        return run(input, conv, norm, activation, pool, pool_first)
    if norm is not None and not _folds(input, conv, norm):
        run = _one_by_one if observers else _normalized
        return run(input, conv, norm, activation, pool, pool_first)
    if observers:
        layers = (conv, norm, pool, activation) if pool_first else (conv, norm, activation, pool)
        for observe in observers:
            observe(_as_block(conv, norm, activation, pool), layers, input)
    weight, bias = (conv.weight, conv.bias) if norm is None else _folded(conv, norm)
    if activation is pool is None:
        return conv._conv_forward(input, weight, bias)
    name, slope = _activation(activation)
    return conv._block_forward(input, weight, bias, name, slope, None if pool is None else _pooling(pool)[0])


def added(y: Any, other: Any, place: str, conv: Any, norm: Any, activation: Activation, then: Activation) -> Any:
    """The end of a residual block, then(y + other), where y is the chain's of conv, norm and activation, and nobody else
    has it: in one pass over it where nobody sees what is between. place: of y in the sum, "first", "second" or "written"
    to."""
    name, slope = _activation(then)
    if (
        observers
        or torch.compiler.is_compiling()  # inductor makes one pass of it
        or torch.jit.is_tracing()
        or type(other) is not Tensor
        or (other.shape, other.device, other.layout) != (y.shape, y.device, torch.strided)
        or (place != "written" and other.stride() != y.stride())  # which the sum would have of both
        or type(slope) is not float
        or not _is_plain(y, other)
        or why_not(conv, norm, activation, None, False)
        or why_not(None, None, then, None, False)
    ):
        if place == "written":
            y += other
            return _activated(y, then)
        return _activated(y + other if place == "first" else other + y, then)
    ops.add_activated_(y, other, ops.ACTIVATIONS[name], slope)
    return y


def joined(inputs: Any, norm: Any, activation: Activation) -> Any:
    """The chain of norm and activation of torch.cat(inputs, 1), in one pass over the inputs where nobody sees it."""
    name, slope = _activation(activation)
    if (
        not observers
        and not why_not(None, norm, activation, None, False)
        and type(slope) is float
        and _are_joinable(inputs, norm.num_features)
        and _is_plain(*inputs, *_statistics(norm))
    ):
        return ops.batch_norm_joined(inputs, *_statistics(norm), norm.eps, ops.ACTIVATIONS[name], slope)
    return fused(torch.cat(inputs, 1), None, norm, activation, None, False)


def _are_joinable(inputs: Any, channels: int) -> bool:
    """Whether these are images with so many channels together. What else torch.cat takes, or refuses, is left to it."""
    if not isinstance(inputs, (list, tuple)) or any(type(t) is not Tensor or t.dim() != 4 for t in inputs):
        return False
    planes = {(t.shape[0], *t.shape[2:]) for t in inputs}
    return len(planes) == 1 and sum(t.shape[1] for t in inputs) == channels


OF_THE_BATCH = "BatchNorm2d takes the batch's statistics (folded in eval() where it has its own)"


def why_not(conv: Any, norm: Any, activation: Activation, pool: Pooling, pool_first: bool) -> str | None:
    """Why this chain cannot be one call, None if it can: OF_THE_BATCH in training, where there is batch normalization."""
    if conv is not None and type(conv) is not modules.Conv2d:
        return f"{type(conv).__name__} is not exactly convlab.Conv2d"
    for part in (conv, norm, activation, pool):
        if isinstance(part, Module) and (reason := _watched(part)):
            return reason
    if norm is not None:
        if type(norm) is not torch.nn.BatchNorm2d:
            return f"{type(norm).__name__} is not exactly BatchNorm2d"
        if conv is not None and norm.num_features != conv.out_channels:
            return f"BatchNorm2d is of {norm.num_features} channels, and the convolution makes {conv.out_channels}"
    if reason := misfit(activation, pool, pool_first):
        return reason
    return OF_THE_BATCH if norm is not None and (norm.training or norm.running_mean is None) else None


def gains(conv: Any, norm: Any, activation: Activation, pool: Pooling, pool_first: bool) -> bool:
    """Whether some layers of this chain are one call: all of them, or in training, on the CPU, norm and activation."""
    reason = why_not(conv, norm, activation, pool, pool_first)
    if reason is not OF_THE_BATCH:
        return reason is None
    tensors = (*_statistics(norm), None if conv is None else conv.weight)
    return activation is not None and all(t is None or (t.is_cpu and t.dtype in _TRAINED) for t in tensors)


def misfit(activation: Activation, pool: Pooling, pool_first: bool) -> str | None:
    """Why no block has this activation and pooling, whatever is before them; None if one has."""
    if isinstance(activation, Module) and type(activation) not in (modules.ReLU, modules.LeakyReLU, ReLU6):
        return f"{type(activation).__name__} is not exactly convlab's ReLU, LeakyReLU or ReLU6"
    if pool is not None:
        if isinstance(pool, Module) and type(pool) is not modules.MaxPool2d:
            return f"{type(pool).__name__} is not exactly convlab.MaxPool2d"
        if reason := _unsuited(*_pooling(pool)):
            return reason
        slope = _activation(activation)[1]
        if pool_first and activation is not None and not 0 < slope < float("inf"):
            return f"negative_slope={slope} after a pooling is not the same as before it"
    return None


def _watched(part: Module) -> str | None:
    """Why somebody would notice if this layer did not run."""
    kind = type(part).__name__
    if (
        part._forward_hooks or part._backward_hooks or part._backward_pre_hooks or part._forward_pre_hooks
    ) and not _only_observed(part):
        return f"{kind} has a hook"
    if hooked_everywhere():
        return "there is a hook for all modules"
    if "forward" in part.__dict__ or "_conv_forward" in part.__dict__:
        return f"{kind}'s forward was replaced"
    return None


def hooked_everywhere() -> bool:
    """Whether there are hooks for all modules; a graph that is being compiled has none."""
    return _has_any_global_hook() and not torch.compiler.is_compiling()


def _only_observed(part: Module) -> bool:
    hooks = (part._forward_hooks, part._backward_hooks, part._backward_pre_hooks)
    return not any(hooks) and all(isinstance(hook, Observer) for hook in part._forward_pre_hooks.values())


def _activation(activation: Any) -> tuple[str | None, float]:
    """Name and slope as conv2d_block takes them. ReLU and ReLU6 have one, too: any that does no harm."""
    if isinstance(activation, torch.nn.LeakyReLU):
        return "leaky_relu", activation.negative_slope
    if isinstance(activation, Module):
        return "relu6" if isinstance(activation, ReLU6) else "relu", 1.0
    return activation or (None, 1.0)


def _pooling(pool: Any) -> tuple[Any, ...]:
    if isinstance(pool, torch.nn.MaxPool2d):
        return pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode, pool.return_indices
    return pool


def _unsuited(
    window: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool, return_indices: bool
) -> str | None:
    if stride is not None and stride != () and _pair(stride) != _pair(window):
        return f"the pooling's stride={stride} is not its window {window}"
    if _pair(padding) != (0, 0) or _pair(dilation) != (1, 1):
        return "the pooling is padded or dilated"
    return "the pooling has ceil_mode or return_indices" if ceil_mode or return_indices else None


def _pair(value: Any) -> tuple[Any, Any]:
    return (value[0], value[-1]) if isinstance(value, (tuple, list)) else (value, value)


def _one_by_one(input: Tensor, conv: Any, norm: Any, activation: Activation, pool: Pooling, pool_first: bool) -> Any:
    y = input if conv is None else conv(input)
    if norm is not None:
        y = norm(y)
    return _activated(_pooled(y, pool), activation) if pool_first else _pooled(_activated(y, activation), pool)


def _activated(y: Any, activation: Activation) -> Any:
    if activation is None or isinstance(activation, Module):
        return y if activation is None else activation(y)
    if activation[0] == "leaky_relu":
        return functional.leaky_relu(y, activation[1])
    return functional.relu6(y) if activation[0] == "relu6" else functional.relu(y)


def _pooled(y: Any, pool: Pooling) -> Any:
    if pool is None or isinstance(pool, Module):
        return y if pool is None else pool(y)
    return functional.max_pool2d(y, *pool)


# ---- batch normalization in eval ------------------------------------------------------------------------------------

# Folding writes the filters once at every forward, normalizing writes the outputs. Where filters are large and outputs
# are few, the latter is less: 2304 values a filter, 7 x 7 outputs each. The batch is not asked, so that an image's
# result does not depend on the others.
_OUTPUTS_PER_VALUE = 4


def _folds(input: Tensor, conv: Any, norm: Any) -> bool:
    if conv is None or input.dim() != 4:
        return False  # which norm refuses
    if torch.jit.is_tracing() or torch.compiler.is_exporting():
        return True  # sizes are not known
    (_, _, height, width), (down, right), weight = input.shape, conv.stride, conv.weight
    return weight.numel() <= _OUTPUTS_PER_VALUE * conv.out_channels * (height // down) * (width // right)


def _folded(conv: Any, norm: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that does what conv and then norm, in eval, do: of the live parameters, and
    differentiable."""
    weight, bias, statistics = conv.weight, conv.bias, _statistics(norm)
    if _is_plain(*statistics, weight, bias):
        return ops.batch_norm_folded(weight, bias, *statistics, norm.eps)
    mean, var, gamma, beta = statistics
    scale = torch.rsqrt(var + norm.eps)
    if gamma is not None:
        scale = scale * gamma
    if bias is not None:
        mean = mean - bias
    shift = -mean * scale if beta is None else torch.addcmul(beta, mean, scale, value=-1)
    folded = weight * scale.view(-1, 1, 1, 1)
    return (folded, shift) if shift.dtype == weight.dtype else (folded.to(weight.dtype), shift.to(weight.dtype))


def _normalized(input: Tensor, conv: Any, norm: Any, activation: Activation, pool: Pooling, pool_first: bool) -> Any:
    """The chain with norm and activation as one pass over what conv makes, where nobody sees it."""
    y = input if conv is None else conv._conv_forward(input, conv.weight, conv.bias)
    (name, slope), statistics = _activation(activation), _statistics(norm)
    if not _suits(y, norm) or type(slope) is not float or not _is_plain(y, *statistics):
        return _one_by_one(y, None, norm, activation, pool, pool_first)
    arguments = (*statistics, norm.eps, ops.ACTIVATIONS[name], slope)
    if conv is None:
        y = ops.batch_norm_forward(y, *arguments)
    else:
        ops.batch_norm_(y, *arguments)
    return _pooled(y, pool)


def _suits(y: Tensor, norm: Any) -> bool:
    """Whether norm takes y: what it does not take is torch's to refuse."""
    return y.dim() == 4 and y.shape[1] == norm.num_features


_TRAINED = (torch.float32, torch.float64)  # in 16 bits torch's is as fast


def _trained(input: Tensor, conv: Any, norm: Any, activation: Activation, pool: Pooling, pool_first: bool) -> Any:
    """The chain in training, with norm and activation as one call where nobody sees what is between."""
    y = input if conv is None else conv._conv_forward(input, conv.weight, conv.bias)
    (name, slope), (mean, var, gamma, beta) = _activation(activation), _statistics(norm)
    if (
        type(slope) is not float
        or not _is_ordinary(y, mean, var, gamma, beta)
        or y.dtype not in _TRAINED
        or not _suits(y, norm)
        or y.numel() <= norm.num_features  # this and the rest torch refuses
        or norm.eps <= 0
        or (mean is None) != (var is None)
        or (mean is not None and (mean.requires_grad or var.requires_grad))
    ):
        return _one_by_one(y, None, norm, activation, pool, pool_first)
    follows = norm.training and norm.track_running_stats
    momentum = norm.momentum
    if follows and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if momentum is None:
            momentum = 1.0 / float(norm.num_batches_tracked)
    running_mean, running_var = (mean, var) if follows else (None, None)
    of = Arguments(running_mean, running_var, momentum or 0.0, norm.eps, ops.ACTIVATIONS[name], slope)
    return _pooled(batch_norm(y, gamma, beta, of), pool)


def _statistics(norm: Any) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    buffers, parameters = norm._buffers, norm._parameters
    try:
        return buffers["running_mean"], buffers["running_var"], parameters["weight"], parameters["bias"]
    except KeyError:  # others are in their places
        return norm.running_mean, norm.running_var, norm.weight, norm.bias


_ORDINARY = frozenset((Tensor, torch.nn.Parameter, type(None)))


def _is_plain(*tensors: Any) -> bool:
    """Whether operators that have no gradient may take these."""
    return _is_ordinary(*tensors) and not needs_autograd(*tensors)


def _is_ordinary(first: Tensor, *others: Any) -> bool:
    """Whether operators may take these that torch's transforms and the simulator do not know: all of one type, on the CPU,
    and nobody sees what is done."""
    return (
        first.is_cpu
        and _ORDINARY.issuperset(map(type, others))
        and all(t.dtype is first.dtype for t in others if t is not None)
        and not is_watched(first)
        and simulator.current() is None  # which has the kernels of CUDA alone
    )


def _as_block(conv: Any, norm: Any, activation: Activation, pool: Pooling) -> modules.ConvBlock2d:
    """The chain as a layer of its own, with conv's parameters, or folded ones."""
    block = torch.nn.Module.__new__(modules.ConvBlock2d)
    block.__dict__ |= {**conv.__dict__, "_parameters": dict(conv._parameters), "_forward_pre_hooks": {}}
    if norm is not None:
        for name, value in zip(("weight", "bias"), _folded(conv, norm)):
            block._parameters[name] = torch.nn.Parameter(value.detach(), requires_grad=conv.weight.requires_grad)
    block.activation, block.negative_slope = _activation(activation)
    block.pool = None if pool is None else _pooling(pool)[0]
    return block
