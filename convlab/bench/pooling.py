"""Max pooling that remembers the winners, as in training, and average pooling; forward and backward."""

import torch

from .. import ops
from ..arguments import is_channels_last
from ..layers import POOLS
from .case import LAYOUTS, Case, torch_and_ours

aten = torch.ops.aten


def cases():
    return [_case(layer, pass_, layout) for layer in POOLS for layout in LAYOUTS for pass_ in ("forward", "backward")]


def _case(layer, pass_, layout):
    by_torch, by_convlab = binders(layer, pass_)
    return Case(
        "pool",
        layer.name,
        pass_,
        layout,
        0,
        layer.bytes,
        lambda: {"x": torch.randn(layer.x), "dy": torch.randn(layer.y)},
        torch_and_ours(layout, by_torch, by_convlab),
        reference=lambda t: by_torch(t)(),
    )


def binders(layer, pass_):
    """Torch's and convlab's: functions of x and dy by name that give calls."""
    bind = {"max": (_max_by_torch, _max_by_convlab), "average": (_average_by_torch, _average_by_convlab)}[
        layer.operation
    ]
    return [lambda t, b=b: b(layer, pass_, t["x"], t["dy"]) for b in bind]


def _window(layer):
    return [layer.kernel] * 2, [layer.stride] * 2, [layer.padding] * 2


def _max_by_torch(layer, pass_, x, dy):
    window = *_window(layer), [1, 1], False
    if pass_ == "forward":
        return lambda: aten.max_pool2d_with_indices.default(x, *window)[0]
    indices = aten.max_pool2d_with_indices.default(x, *window)[1]
    return lambda: aten.max_pool2d_with_indices_backward.default(dy, x, *window, indices)


def _max_by_convlab(layer, pass_, x, dy):
    window = *_window(layer), [1, 1]
    if pass_ == "forward":
        return lambda: ops.max_pool2d_forward(x, *window, False, True)[0]
    offsets = ops.max_pool2d_forward(x, *window, False, True)[1]
    return lambda: ops.max_pool2d_backward(dy, offsets, x.shape[2:], *window, is_channels_last(x))


def _average_by_torch(layer, pass_, x, dy):
    window = *_window(layer), False, True, None
    if pass_ == "forward":
        return lambda: aten.avg_pool2d.default(x, *window)
    return lambda: aten.avg_pool2d_backward.default(dy, x, *window)


def _average_by_convlab(layer, pass_, x, dy):
    window = _window(layer)
    if pass_ == "forward":
        return lambda: ops.avg_pool2d_forward(x, *window, False, True, 0)
    return lambda: ops.avg_pool2d_backward(dy, x.shape[2:], *window, True, 0, is_channels_last(x))
