"""Batch normalization by the batch's own statistics with the activation behind it, one call on the CPU: what `fuse` makes
of the two layers in training."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from . import ops, simulator
from ._fast_apply import apply, has_at_once, is_watched, needs_autograd


class Arguments(NamedTuple):
    """What it has beside x, gamma and beta. The running statistics go `momentum` of the way to the batch's."""

    running_mean: Tensor | None
    running_var: Tensor | None
    momentum: float
    eps: float
    activation: int
    slope: float


def batch_norm(x: Tensor, gamma: Tensor | None, beta: Tensor | None, a: Arguments) -> Any:
    """x [N, C, ...] -> y, differentiable; on the CPU, all float32 or all float64, and where nobody is to see what torch
    does."""
    return apply(BatchNorm, x, gamma, beta, a)[0]


class BatchNorm(Function):
    """x, gamma, beta -> y, and terms [4, C]: the batch's mean and 1 / sqrt(var + eps), and of each channel the scale and
    shift that give y. Derivatives beyond the first are torch's."""

    @staticmethod
    def forward(x: Any, gamma: Any, beta: Any, a: Arguments) -> Any:
        return ops.batch_norm_train(x, gamma, beta, *a)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, gamma, _, ctx.arguments = inputs
        _, terms = output
        ctx.mark_non_differentiable(terms)
        ctx.save_for_backward(x, gamma, terms)

    @staticmethod
    def backward(ctx: Any, dy: Any, *_: Any) -> Any:
        if dy is None:
            return None, None, None, None
        x, gamma, terms = ctx.saved_tensors
        a = ctx.arguments
        if needs_autograd(dy, x, gamma) or is_watched(dy) or simulator.current() is not None:
            gradients = _torchs(dy, x, gamma, terms, a)
        else:
            gradients = ops.batch_norm_train_backward(dy, x, terms, a.activation, a.slope)
        return *(d if wanted else None for d, wanted in zip(gradients, ctx.needs_input_grad)), None


has_at_once(BatchNorm, BatchNorm.setup_context, BatchNorm.backward)


def _torchs(dy: Any, x: Any, gamma: Any, terms: Any, a: Arguments) -> Any:
    """The same of torch's operators, which are differentiable and have rules for vmap."""
    if a.activation != ops.ACTIVATIONS[None]:
        with torch.no_grad():  # what passes does not depend on how much
            z = _before_activation(x.detach(), *terms[2:])
            passes = ~(z <= 0)
            if a.activation == ops.ACTIVATIONS["relu6"]:
                passes &= ~(z >= 6)
        held_back = dy * a.slope if a.activation == ops.ACTIVATIONS["leaky_relu"] else torch.zeros_like(dy)
        dy = torch.where(passes, dy, held_back)
    if not is_watched(dy) and dy.stride() != x.stride():
        dy = torch.empty_like(x).copy_(dy)  # torch 2.14 gives wrong numbers for x and dy of two layouts
    mean, rstd, *_ = terms
    mask = [True, gamma is not None, True]
    return torch.ops.aten.native_batch_norm_backward(dy, x, gamma, None, None, mean, rstd, True, a.eps, mask)


def _before_activation(x: Any, scale: Any, shift: Any) -> Any:
    """What the activation got, to the bit: by the kernel that made it."""
    if is_watched(x) or simulator.current() is not None:
        shape = (-1, *[1] * (x.dim() - 2))
        return x * scale.view(shape) + shift.view(shape)
    zeros = torch.zeros_like(scale)
    return ops.batch_norm_forward(x, zeros, zeros + 1, scale, shift, 0.0, ops.ACTIVATIONS[None], 1.0)
