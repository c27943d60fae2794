"""What a call costs before any arithmetic: a convolution of 1 x 1 x 8 x 8 by one 3 x 3 filter, through the functions
people call."""

import torch
from torch.nn import functional as F

from .. import functional as CF
from ..layers import TINY
from .case import OURS, Case, Contestant


def cases():
    return [_case("forward"), _case("forward+backward")]


def _case(pass_):
    grad = pass_ != "forward"

    def draw():
        return {
            "x": torch.randn(TINY.x),
            "w": torch.randn(TINY.w),
            "bias": torch.randn(TINY.K),
            "dy": torch.randn(TINY.y),
        }

    def by(conv2d):
        def bind(t):
            x, w, bias = (t[name].clone().requires_grad_(grad) for name in ("x", "w", "bias"))
            dy = t["dy"]
            if grad:
                return lambda: torch.autograd.grad(conv2d(x, w, bias), (x, w, bias), dy)
            return lambda: conv2d(x, w, bias)

        return Contestant("nchw", bind)

    return Case(
        "overhead",
        TINY.name,
        pass_,
        "nchw",
        0,
        0,
        draw,
        {OURS: by(CF.conv2d), "torch nchw": by(F.conv2d)},
        reference=lambda t: by(F.conv2d).bind(t)(),
        grad=grad,
        slack=1e-6,
    )
