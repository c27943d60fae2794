"""Pooling and leaky ReLU as in training: forward keeps for backward what convlab's layers keep, a byte an output. In
float32."""

import torch

from ... import ops
from ...layers import GPU_ACTIVATIONS, GPU_POOLS
from .. import activations, pooling
from ..case import LAYOUTS, OURS
from .case import Case, Way

PASSES = ("forward", "backward")


def pool_cases(device):
    return [_pool_case(device, shrunk(layer, device), pass_) for layer in GPU_POOLS for pass_ in PASSES]


def activation_cases(device):
    return [_activation_case(device, shrunk(layer, device), pass_) for layer in GPU_ACTIVATIONS for pass_ in PASSES]


def shrunk(layer, device):
    """A layer as large as it is, or, in a dry run, two planes of it."""
    return layer._replace(N=1, C=2) if device.dry else layer


def _pool_case(device, layer, pass_):
    by_torch, by_convlab = pooling.binders(layer, pass_)
    ways = {}
    for layout in LAYOUTS:
        ways[OURS if layout == "nchw" else f"{OURS} {layout}"] = Way(
            "float32", layout, _ours(device, by_convlab), profile=False
        )
        ways[f"torch {layout}"] = Way("float32", layout, by_torch)

    def draw():
        return {"x": torch.randn(layer.x, device=device.type), "dy": torch.randn(layer.y, device=device.type)}

    return Case("pool", layer.name, pass_, "float32", 0, layer.bytes, draw, ways, lambda t: by_torch(t)())


def _activation_case(device, layer, pass_):
    by_torch, by_convlab = activations.binders(layer.operation, pass_)
    if pass_ == "forward":

        def by_convlab(t):
            return lambda: ops.leaky_relu_forward(t["x"], activations.SLOPE, True)[0]

    ways = {
        OURS: Way("float32", "nchw", _ours(device, by_convlab), profile=False),
        "torch nchw": Way("float32", "nchw", by_torch),
    }

    def draw():
        return {"x": torch.randn(layer.x, device=device.type), "dy": torch.randn(layer.x, device=device.type)}

    return Case(
        "act", layer.name, pass_, "float32", 0, layer.size * 9 // 4, draw, ways, lambda t: by_torch(t)()
    )  # two floats and a byte


def _ours(device, bind):
    def bound(t):
        with device.simulating():  # what forward keeps for backward is made here
            return device.ours(bind(t))

    return bound
