"""Leaky ReLU and ReLU, forward and backward. Their layout does not matter; they are measured in NCHW."""

import torch

from .. import ops
from ..layers import ACTIVATIONS
from .case import OURS, Case, Contestant

SLOPE = 0.01
aten = torch.ops.aten


def cases():
    return [_case(layer, pass_) for layer in ACTIVATIONS for pass_ in ("forward", "backward")]


def binders(operation, pass_):
    """Torch's and convlab's: functions of x and dy by name that give calls."""
    return _CALLS[operation, pass_]


def _case(layer, pass_):
    by_torch, by_convlab = binders(layer.operation, pass_)
    return Case(
        "activation",
        layer.name,
        pass_,
        "nchw",
        0,
        layer.bytes(pass_),
        lambda: {"x": torch.randn(layer.x), "dy": torch.randn(layer.x)},
        {OURS: Contestant("nchw", by_convlab), "torch nchw": Contestant("nchw", by_torch)},
        reference=lambda t: by_torch(t)(),
    )


def _unary(call, *rest):
    def bind(t):
        x = t["x"]
        return lambda: call(x, *rest)

    return bind


def _binary(call, *rest):
    def bind(t):
        x, dy = t["x"], t["dy"]
        return lambda: call(dy, x, *rest)

    return bind


def _leaky_relu_backward(t):
    dy, positive = t["dy"], t["x"] > 0  # what forward remembers
    return lambda: ops.leaky_relu_backward(dy, positive, SLOPE)


_CALLS = {
    ("leaky_relu", "forward"): (
        _unary(aten.leaky_relu.default, SLOPE),
        lambda t: lambda: ops.leaky_relu_forward(t["x"], SLOPE, False)[0],
    ),
    ("leaky_relu", "backward"): (_binary(aten.leaky_relu_backward.default, SLOPE, False), _leaky_relu_backward),
    ("relu", "forward"): (_unary(aten.relu.default), _unary(ops.relu_forward)),
    ("relu", "backward"): (_binary(aten.threshold_backward.default, 0), _binary(ops.relu_backward)),
}
