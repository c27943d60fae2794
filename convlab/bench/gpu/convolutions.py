"""Convolutions as cuDNN and convlab do them: forward, dgrad, wgrad, without a bias, in each precision."""

import math

import torch

from ... import ops
from ..._algorithms import PASSES, algorithms, numbers_of
from ...arguments import is_channels_last
from ...layers import GPU_CONVOLUTIONS
from ..case import LAYOUTS, OURS
from .case import Case, Way
from .precision import dtype_of

LADDER = (
    "lenet-c1@1024",
    "lenet-c3@1024",
    "cifar-32-64@512",
    "resnet-128@64",
    "resnet-stem@64",
    "depthwise-128-56@64",
)  # where each rung is timed by itself


def cases(device, algo="auto"):
    """The rows of float32, layer by layer, then those of bfloat16. `algo`: convlab's."""
    layers = [shrunk(layer, device) for layer in GPU_CONVOLUTIONS]
    return [
        _case(device, layer, pass_, dtype, algo)
        for dtype in ("float32", "bfloat16")
        for layer in layers
        for pass_ in PASSES
    ]


def ladder_cases(device):
    """Every rung beside the one that "auto" takes."""
    return [
        _ladder_case(device, shrunk(layer, device), pass_)
        for layer in GPU_CONVOLUTIONS
        if layer.name in LADDER
        for pass_ in PASSES
    ]


def shrunk(layer, device):
    """A layer as large as it is, or, in a dry run, of one small image with few channels."""
    if not device.dry:
        return layer
    few = {} if layer.C <= 16 else {"C": 8, "K": 8, "groups": 8 if layer.groups > 1 else 1}
    H, W = min(layer.H, max(layer.R, 8)), min(layer.W, max(layer.S, 8))
    return layer._replace(N=1, H=H, W=W, **few)


def _case(device, layer, pass_, precision, algo):
    ways = {OURS: Way(precision, "nchw", _by_convlab(device, layer, pass_, algo), profile=False)}
    for layout in LAYOUTS:
        ways[f"torch {layout}"] = Way(precision, layout, _by_torch(layer, pass_))
    if precision == "float32":  # what torch does unasked
        for layout in LAYOUTS:
            ways[f"torch {layout} tf32"] = Way("tf32", layout, _by_torch(layer, pass_))
    return _of("conv", device, layer, pass_, precision, ways)


def _ladder_case(device, layer, pass_):
    ways = {OURS: Way("float32", "nchw", _by_convlab(device, layer, pass_, "auto"), profile=False)}
    problem = layer.problem()
    for rung in algorithms():
        if "cuda" in rung.backends and rung.supports(problem, pass_)[0]:
            ways[f"{OURS} {rung.name}"] = Way(
                "float32", "nchw", _by_convlab(device, layer, pass_, rung.name), profile=False
            )
    ways["torch nchw"] = Way("float32", "nchw", _by_torch(layer, pass_), profile=False)
    return _of("ladder", device, layer, pass_, "float32", ways)


def _of(kind, device, layer, pass_, precision, ways):
    def draw():
        return {
            "x": torch.randn(layer.x, device=device.type),
            "w": torch.randn(layer.w, device=device.type) * math.prod(layer.w[1:]) ** -0.5,
            "dy": torch.randn(layer.y, device=device.type),
        }

    size = torch.empty((), dtype=dtype_of(precision)).element_size()
    elements = sum(torch.Size(shape).numel() for shape in (layer.x, layer.w, layer.y))
    slack = {"float32": 2e-5, "bfloat16": 2e-2}[
        precision
    ]  # sums are made in another order than torch's; what is wrong is wronger
    return Case(
        kind,
        layer.name,
        pass_,
        precision,
        layer.flops,
        size * elements,
        draw,
        ways,
        lambda t: _by_torch(layer, pass_)(t)(),
        dtype_of(precision),
        slack=slack,
    )


def _by_torch(layer, pass_):
    def bind(t):
        x, w, dy = t["x"], t["w"], t["dy"]
        rest = layer.stride, layer.padding, layer.dilation, False, [0, 0], layer.groups
        if pass_ == "forward":
            return lambda: torch.ops.aten.convolution.default(x, w, None, *rest)
        backward, wants_dx = torch.ops.aten.convolution_backward.default, pass_ == "dgrad"
        return lambda: backward(dy, x, w, None, *rest, [wants_dx, not wants_dx, False])[0 if wants_dx else 1]

    return bind


def _by_convlab(device, layer, pass_, algo):
    def bind(t):
        x, w, dy = t["x"], t["w"], t["dy"]
        problem = layer.problem(x.dtype)
        number = numbers_of({pass_: algo} if algo != "auto" else algo, "cuda", problem)[PASSES.index(pass_)]
        geometry, channels_last = problem.geometry, is_channels_last(x)
        return device.ours(
            {
                "forward": lambda: ops.conv2d_forward(x, w, None, geometry, number),
                "dgrad": lambda: ops.conv2d_dgrad(dy, w, x.shape[2:], geometry, channels_last, number),
                "wgrad": lambda: ops.conv2d_wgrad(dy, x, w.shape[2:], geometry, False, channels_last, number)[0],
            }[pass_]
        )

    return bind
