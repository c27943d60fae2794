"""Batch normalization by the batch's own statistics with the activation behind it, one call on the CPU: what `fuse` makes
of the two layers in training."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from . import ops, simulator
from ._fast_apply import has_at_once, is_watched, needs_autograd


class Arguments(NamedTuple):
    """What it has beside x, gamma and beta. The running statistics go `momentum` of the way to the batch's."""

    running_mean: Tensor | None
    running_var: Tensor | None
    momentum: float
    eps: float
    activation: int
    slope: float


def batch_norm(x: Tensor, gamma: Tensor | None, beta: Tensor | None, a: Arguments) -> Any:
    """x [N, C, ...] -> y, differentiable; on the CPU, all of one dtype, and where nobody is to see what torch does."""
    forward: Any = BatchNorm.at_once if needs_autograd(x, gamma, beta) else BatchNorm.forward  # type: ignore[attr-defined]
    return forward(x, gamma, beta, a)[0]


class BatchNorm(Function):
    """x, gamma, beta -> y, and the batch's mean and 1 / sqrt(var + eps). Derivatives beyond the first are torch's."""

    @staticmethod
    def forward(x: Any, gamma: Any, beta: Any, a: Arguments) -> Any:
        return ops.batch_norm_train(x, gamma, beta, *a)


def _remember(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, ctx.arguments = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*tensors, *output[1:])


def _backward(ctx: Any, dy: Any, *_: Any) -> Any:
    if dy is None:
        return None, None, None, None
    x, gamma, beta, mean, rstd = ctx.saved_tensors
    a = ctx.arguments
    if needs_autograd(dy, x, gamma, beta) or is_watched(dy) or simulator.current() is not None:
        gradients = _torchs(dy, x, gamma, beta, mean, rstd, a)
    else:
        gradients = ops.batch_norm_train_backward(dy, x, gamma, beta, mean, rstd, a.activation, a.slope)
    dx, dgamma, dbeta = gradients
    return dx, None if gamma is None else dgamma, None if beta is None else dbeta, None


def _torchs(dy: Any, x: Any, gamma: Any, beta: Any, mean: Any, rstd: Any, a: Arguments) -> Any:
    """The same of torch's operators, which are differentiable and have rules for vmap."""
    with torch.no_grad():  # what passes does not depend on how much
        shape = (-1, *[1] * (x.dim() - 2))
        scale = rstd if gamma is None else rstd * gamma
        z = x * scale.view(shape) + ((0 if beta is None else beta) - mean * scale).view(shape)
        z = z.to(x.dtype)
        passes = ~(z <= 0)
        if a.activation == ops.ACTIVATIONS["relu6"]:
            passes &= ~(z >= 6)
    if a.activation != ops.ACTIVATIONS[None]:
        held_back = dy * a.slope if a.activation == ops.ACTIVATIONS["leaky_relu"] else torch.zeros_like(dy)
        dy = torch.where(passes, dy, held_back)
    mask = [True, gamma is not None, beta is not None]
    return torch.ops.aten.native_batch_norm_backward(dy, x, gamma, None, None, mean, rstd, True, a.eps, mask)


has_at_once(BatchNorm, _remember, _backward)
