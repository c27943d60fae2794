"""The survey: every distinct convolution, pooling and ReLU of twenty of torchvision's models, from survey.csv.

`tools/survey_problems.py` wrote it: an image a problem, in the sizes that the models meet at 224 x 224. A size such as
3x1 is height x width.
"""

import csv
from pathlib import Path

from ..layers import Activation, Conv, Pool
from .cases import Problems

FILE = Path(__file__).with_name("survey.csv")
BATCHES = 1, 8


def problems() -> Problems:
    """All of it, in both batches."""
    with FILE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    batched = [(row, N) for row in rows for N in BATCHES]
    return Problems(
        convolutions=tuple(_convolution(row, N) for row, N in batched if row["operation"] == "conv"),
        pools=tuple(_pool(row, N) for row, N in batched if row["operation"] in ("max", "max_ceil", "average")),
        activations=tuple(_relu(row, N) for row, N in batched if row["operation"] == "relu"),
    )


def _pair(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return int(height), int(width or height)


def _convolution(row, N) -> Conv:
    sizes = (int(row[key]) for key in "CHWKRS")
    return Conv(N, *sizes, *(_pair(row[key]) for key in ("stride", "padding", "dilation")), int(row["groups"]))


def _pool(row, N) -> Pool:
    C, H, W, R, S = (int(row[key]) for key in "CHWRS")
    (stride, width), (padding, _) = _pair(row["stride"]), _pair(row["padding"])
    assert (H, R, stride) == (W, S, width), f"not square: {row}"
    operation, _, ceil = row["operation"].partition("_")
    name = f"{operation}-x{N}.{C}.{H}-k{R}-s{stride}-p{padding}" + "-ceil" * bool(ceil)
    return Pool(name, operation, N, C, H, R, stride, padding, bool(ceil))


def _relu(row, N) -> Activation:
    C, H, W = (int(row[key]) for key in "CHW")
    assert H == W, f"not square: {row}"
    return Activation(f"relu-x{N}.{C}.{H}", "relu", N, C, H)
