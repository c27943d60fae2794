"""What the rows are wanted to reach, and whether they do.

A ratio is the time of torch's best, or of torch in the row's layout, in convlab's: the median over rounds.
"""

import math
from typing import NamedTuple

NEAR_PEAK = 0.85  # of the FMA peak: where torch runs above it, nobody can be much faster
PEAK_LAYERS = ("cifar-64-128", "resnet-64", "resnet-128", "resnet-256")
MB8 = 8 * 2**20


class Figure(NamedTuple):
    """value: a geometric mean, or the least of the rows; None if none of the rows was measured. misses: the rows that
    fall short, or were refused. disturbed: of how many rows the times are no evidence, because other programs took the
    processor."""

    name: str
    target: str
    value: float | None
    reached: bool
    rows: int
    misses: list[str]
    disturbed: int


def figures(rows):
    """All figures that the rows allow."""
    nchw, last = _of(rows, "conv", layout="nchw"), _of(rows, "conv", layout="channels_last")
    near_peak = [row for row in nchw if not _refused(row) and row["share"][row["best"]] > NEAR_PEAK]
    others = [row for row in nchw if row not in near_peak]
    at_peak = [row for row in nchw if row["layer"] in PEAK_LAYERS and row["pass"] != "wgrad"]
    pools = [row for row in _of(rows, "pool") if row["layer"].startswith("max")]
    forward = [row for row in pools if row["pass"] == "forward"]
    leaky = [
        row for row in _of(rows, "activation") if row["layer"].startswith("leaky_relu") and row["bytes"] >= 2 * MB8
    ]
    steps = _of(rows, "step", layout="nchw")
    found = [
        _mean("convolutions, NCHW, against torch NCHW", nchw, _same_layout, 1.6),
        _mean("convolutions, NCHW, against torch's best", nchw, _best, 1.2),
        _least(
            "convolutions, NCHW, each against torch's best, where that is above 85 % of peak", near_peak, _best, 0.92
        ),
        _least("convolutions, NCHW, each against torch's best, elsewhere", others, _best, 1.0),
        _least("convolutions, channels_last, each against torch's best", last, _best, 0.92),
        _least(
            "forward and dgrad of " + ", ".join(PEAK_LAYERS) + ": share of FMA peak",
            at_peak,
            lambda row: row["share"]["convlab"],
            0.9,
        ),
        _mean(
            "max pooling forward, NCHW, against torch NCHW",
            [r for r in forward if r["layout"] == "nchw"],
            _same_layout,
            20,
        ),
        _mean(
            "max pooling forward, channels_last, against torch channels_last",
            [r for r in forward if r["layout"] == "channels_last"],
            _same_layout,
            1.2,
        ),
        _mean("max pooling backward, against torch's best", [r for r in pools if r["pass"] == "backward"], _best, 1.5),
        _least("leaky ReLU from 8 MB up, each", leaky, _best, 0.95),
        _mean(
            "LeNet-5 step, batch 256, against eager torch",
            [r for r in steps if r["layer"] == "lenet-5"],
            _same_layout,
            3.5,
        ),
        _mean(
            "CIFAR step, batch 128, against eager torch", [r for r in steps if r["layer"] == "cifar"], _same_layout, 2.0
        ),
    ]
    return [figure for figure in found if figure.rows]


def row_id(row):
    return " ".join(row[key] for key in ("kind", "layer", "pass", "layout"))


def geometric_mean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def _of(rows, kind, layout=None):
    return [row for row in rows if row["kind"] == kind and layout in (None, row["layout"])]


def _refused(row):
    return "refused" in row


def _same_layout(row):
    return row["ratios"]["torch " + row["layout"]]["median"]


def _best(row):
    return row["ratios"][row["best"]]["median"]


def _mean(name, rows, value_of, target):
    """The geometric mean over the rows; not reached if one was refused."""
    values = [value_of(row) for row in rows if not _refused(row)]
    value = geometric_mean(values) if values else None
    refused = [row_id(row) for row in rows if _refused(row)]
    return Figure(
        name,
        f"mean >= {target}",
        value,
        bool(values) and not refused and value >= target,
        len(rows),
        refused,
        _disturbed(rows),
    )


def _least(name, rows, value_of, target):
    """The least of the rows; each has to reach the target."""
    misses = [row_id(row) for row in rows if _refused(row) or value_of(row) < target]
    values = [value_of(row) for row in rows if not _refused(row)]
    return Figure(name, f"each >= {target}", min(values, default=None), not misses, len(rows), misses, _disturbed(rows))


def _disturbed(rows):
    return sum(row.get("disturbed", False) for row in rows)
