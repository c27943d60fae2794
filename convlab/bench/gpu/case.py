"""What is measured, before it is: a row of the record."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch


class Way(NamedTuple):
    """Somebody's way to do a case. `bind` takes the case's tensors in this layout; calling what it returns does the
    work once.

    precision: of multiplications. capture: whether calls are put into a graph. profile: whether the names of its
    kernels are recorded.
    """

    precision: str
    layout: str
    bind: Callable[[dict[str, torch.Tensor]], Callable[[], Any]]
    capture: bool = True
    profile: bool = True


@dataclass(frozen=True)
class Case:
    """`draw()` makes float32 tensors on the device, by name; ways get them in `dtype`, `reference` in float64: it says
    what the outputs should be.

    flops, bytes: what the work takes at the least. slack: how much more than twice the worst error of torch's in the
    same precision is forgiven, relative to the largest output. grad: whether autograd records the calls.
    """

    kind: str
    layer: str
    pass_: str
    precision: str
    flops: int
    bytes: int
    draw: Callable[[], dict[str, torch.Tensor]]
    ways: dict[str, Way]
    reference: Callable[[dict[str, torch.Tensor]], Any]
    dtype: torch.dtype = torch.float32
    grad: bool = False
    slack: float = 1.2e-7

    @property
    def id(self):
        return f"{self.kind} {self.layer} {self.pass_} {self.precision}"
