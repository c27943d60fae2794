"""One row of the table before it is measured."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
OURS = "convlab"


class Contestant(NamedTuple):
    """Somebody's way to do a case. `bind` takes the case's tensors in this layout; calling what it returns does the
    work once."""

    layout: str
    bind: Callable[[dict[str, torch.Tensor]], Callable[[], Any]]


@dataclass(frozen=True)
class Case:
    """`draw()` makes the tensors, by name; `reference` what the outputs should be, in float64, from the tensors in
    float64.

    contestants: convlab's under "convlab", torch's under "torch nchw" and so on. flops and bytes: what the work takes
    at the least. grad: whether autograd records the calls. slack: how much more than twice torch's error is forgiven,
    relative.
    """

    kind: str
    layer: str
    pass_: str
    layout: str
    flops: int
    bytes: int
    draw: Callable[[], dict[str, torch.Tensor]]
    contestants: dict[str, Contestant]
    reference: Callable[[dict[str, torch.Tensor]], Any]
    grad: bool = False
    slack: float = 1.2e-7  # one rounding of the largest output

    @property
    def id(self):
        return f"{self.kind} {self.layer} {self.pass_} {self.layout}"


def in_layout(tensors, layout):
    """The same tensors with every [N, C, H, W] among them in `layout`, by its strides even where sizes of 1 would allow
    others."""
    return {
        name: torch.empty_like(t, memory_format=LAYOUTS[layout]).copy_(t) if t.dim() == 4 else t
        for name, t in tensors.items()
    }


def cast(tensors, dtype):
    """The same tensors with every float among them in `dtype`."""
    return {name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors.items()}


def torch_and_ours(layout, torch_bind, our_bind):
    """The contestants of most cases: convlab in the case's layout, torch in either."""
    peers = {f"torch {name}": Contestant(name, torch_bind) for name in LAYOUTS}
    return {OURS: Contestant(layout, our_bind), **peers}
