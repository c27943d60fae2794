"""Convolutions: forward with bias, dgrad, and wgrad with the bias's gradient."""

import math

import torch
from torch.nn import functional as F

from .. import ops
from .._algorithms import PASSES, Conv2dProblem, numbers_of
from ..layers import CONVOLUTIONS
from .case import LAYOUTS, Case, torch_and_ours


def cases(algo="auto"):
    """All of them; `algo` is convlab.functional.conv2d's."""
    return [_case(layer, pass_, layout, algo) for layer in CONVOLUTIONS for layout in LAYOUTS for pass_ in PASSES]


def _case(layer, pass_, layout, algo):
    def draw():
        return {
            "x": torch.randn(layer.x),
            "w": torch.randn(layer.w) * math.prod(layer.w[1:]) ** -0.5,
            "bias": torch.randn(layer.K),
            "dy": torch.randn(layer.y),
        }

    def by_torch(t):
        x, w, bias, dy = t["x"], t["w"], t["bias"], t["dy"]
        if pass_ == "forward":
            return lambda: F.conv2d(x, w, bias, *layer.arguments)
        mask = [pass_ == "dgrad", pass_ == "wgrad", pass_ == "wgrad"]
        rest = [layer.K], layer.stride, layer.padding, layer.dilation, False, [0, 0], layer.groups, mask
        backward = torch.ops.aten.convolution_backward.default
        if pass_ == "dgrad":
            return lambda: backward(dy, x, w, *rest)[0]
        return lambda: backward(dy, x, w, *rest)[1:]

    def by_convlab(t):
        x, w, bias, dy = t["x"], t["w"], t["bias"], t["dy"]
        problem = Conv2dProblem.of(x, w, *layer.arguments)
        wanted = algo if isinstance(algo, dict) or algo == "auto" else {pass_: algo}
        number = numbers_of(wanted, "cpu", problem)[PASSES.index(pass_)]
        geometry = problem.geometry
        if pass_ == "forward":
            return lambda: ops.conv2d_forward(x, w, bias, geometry, number)
        if pass_ == "dgrad":
            return lambda: ops.conv2d_dgrad(dy, w, x.shape[2:], geometry, problem.channels_last, number)
        return lambda: ops.conv2d_wgrad(dy, x, w.shape[2:], geometry, True, problem.channels_last, number)

    return Case(
        "conv",
        layer.name,
        pass_,
        layout,
        layer.flops,
        layer.bytes,
        draw,
        torch_and_ours(layout, by_torch, by_convlab),
        reference=lambda t: by_torch(t)(),
    )
