"""What torch.utils.flop_counter counts for convlab's operators: what it counts for torch's."""

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from ._when_imported import when_imported

Shape = Sequence[int]


def count_flops(operators: Any) -> None:
    """Tells the counter of FLOPs, if one is ever imported, of the convolutions of `operators` (torch.ops.convlab)."""

    def register(counter: ModuleType) -> None:
        @counter.register_flop_formula(operators.conv2d_forward)
        def _(x: Shape, w: Shape, *args: object, out_shape: Shape, **kwargs: object) -> int:
            return counter.conv_flop_count(x, w, out_shape, transposed=False)

        @counter.register_flop_formula(operators.conv2d_dgrad)
        def dgrad(dy: Shape, w: Shape, *args: object, out_shape: Shape, **kwargs: object) -> int:
            return counter.conv_flop_count(dy, w, out_shape, transposed=True)

        @counter.register_flop_formula(operators.conv2d_wgrad)
        def wgrad(dy: Shape, x: Shape, *args: object, out_shape: tuple[Shape, Shape], **kwargs: object) -> int:
            return gradient_of_weight(dy, x, out_shape[0])

        @counter.register_flop_formula(operators.conv2d_backward)
        def backward(
            dy: Shape, x: Shape, w: Shape, *args: object, out_shape: tuple[Shape, ...], **kwargs: object
        ) -> int:
            return counter.conv_flop_count(dy, w, x, transposed=True) + gradient_of_weight(dy, x, w)

        def gradient_of_weight(dy: Shape, x: Shape, dw: Shape) -> int:
            return counter.conv_flop_count(*(_channels_first(shape) for shape in (x, dy, dw)), transposed=False)

    when_imported("torch.utils.flop_counter", register)


def renew_counters() -> None:
    """Tells the counters that are counting, which know what was registered when they were made, of what was since."""
    if counter := sys.modules.get("torch.utils.flop_counter"):
        for mode in _get_current_dispatch_mode_stack():
            if isinstance(mode, counter._FlopCounterMode):
                mode.counter.flop_registry.update(counter.flop_registry)


def _channels_first(shape: Shape) -> list[int]:
    """Of wgrad, which torch counts as the convolution of x by dy with batch and channels exchanged."""
    return [shape[1], shape[0], *shape[2:]]
