"""A case: one thing to be measured."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
OURS = "convlab"
PRECISIONS = ("float32", "tf32", "bfloat16", "float16")  # of convolutions on a GPU
ROUNDED = ("tf32", "bf16")  # float32 that torch's switches allow to be rounded; on a CPU as the switch there calls it
CPU_PRECISIONS = ("float32", *ROUNDED, "bfloat16")
HEAD = ("kind", "layer", "pass", "layout", "precision")  # these and the number of threads identify a row


class Way(NamedTuple):
    """One way to do a case, convlab's or torch's. `bind` takes the case's tensors in this layout and returns a
    function; each call of it does the work once.

    precision: of multiplications. "tf32": float32 tensors, multiplied by tensor cores with ten bits of mantissa. On a CPU it is what
    torch.backends.mkldnn.conv.fp32_precision says, as is "bf16", where float32 may be rounded to bfloat16.
    "float32": not so, though a GPU's tensor cores may make each product of three in TF32.
    capture: whether its calls are captured into a graph, where a device has graphs.
    """

    layout: str
    bind: Callable[[dict[str, torch.Tensor]], Callable[[], Any]]
    precision: str = "float32"
    capture: bool = True


@dataclass(frozen=True)
class Case:
    """`draw()` makes the tensors, by name and in float32, on torch's default device. Ways get them in `dtype`;
    `reference`, bound to them in float64 like a way, says what the outputs should be.

    ways: by name. convlab's begin with "convlab"; the others are compared with "convlab" itself, and graphs with
    "convlab graph". torch's are "torch nchw", "torch channels_last", "torch.compile nchw" and so on; old records have
    "torch nchw tf32", too, beside float32.
    flops, bytes: what the work takes at least. grad: whether autograd records the calls.
    slack: how far an error may exceed twice torch's worst in the same precision, relative to the largest output.
    kernels: whether to record the names of the kernels that torch runs.
    """

    kind: str
    layer: str
    pass_: str
    layout: str
    precision: str
    flops: int
    bytes: int
    draw: Callable[[], dict[str, torch.Tensor]]
    ways: dict[str, Way]
    reference: Callable[[dict[str, torch.Tensor]], Callable[[], Any]]
    dtype: torch.dtype = torch.float32
    grad: bool = False
    slack: float = 1.2e-7  # one rounding of the largest output
    kernels: bool = True

    @property
    def head(self):
        """The fields that its row begins with."""
        return dict(zip(HEAD, (self.kind, self.layer, self.pass_, self.layout, self.precision)))


def dtype_of(precision) -> torch.dtype:
    """Of the tensors that are multiplied in that precision."""
    return torch.float32 if precision in ROUNDED else getattr(torch, precision)


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
