"""The tables of README.md, generated from the JSON of a run on a CPU or of `make gpu-report`: never typed, and a test
compares them.

Each of the two has a block of the README, between lines that name the JSON.
"""

import re
from pathlib import Path

from .._algorithms import PASSES
from ..layers import CONVOLUTIONS
from . import record
from .case import OURS
from .gpu import readme as gpu
from .targets import figures, row_id

ROOT = Path(__file__).resolve().parents[2]
NOT_YET = "Not measured yet."
CPU, GPU = "measured", "measured on a GPU"  # the blocks


def source_of(text, block=CPU):
    """The JSON that the README's block names, or None while nothing has been measured. Raises BadRecord without a
    block."""
    name = _block(text, block).group(1)
    return None if name == "nothing" else name


def contents_of(text, block=CPU):
    """What stands in the README's block."""
    return _block(text, block).group(2).strip()


def load(path):
    """The record of a run on a CPU or of a GPU's report. Raises BadRecord."""
    try:
        return gpu.load(path)
    except record.BadRecord:
        return record.load(path)


def updated(text, kept, name):
    """The README with the block written anew that `kept`, which lies in `name`, is for."""
    block = GPU if kept["command"] == gpu.COMMAND else CPU
    match, new = _block(text, block), (gpu.tables if block == GPU else tables)(kept)
    return (
        f"{text[: match.start()]}<!-- {block}: {name} -->\n{new}\n<!-- end of what was {block} -->{text[match.end() :]}"
    )


def tables(kept):
    """A CPU's block. Raises BadRecord for a run that is not whole, or not of what convlab does unasked."""
    options = kept["options"]
    selects = any(options[key] for key in ("filter", "layers", "passes", "layout", "kinds"))
    if kept["command"] != "cpu" or not kept["complete"] or selects or options["cold"] or options["algo"] != "auto":
        raise record.BadRecord(
            "the README shows whole runs: python -m convlab.bench cpu, without a selection of rows, --cold or --algo"
        )
    rows = {row_id(row): row for row in kept["rows"]}
    return "\n".join(
        [
            _conditions(kept),
            "",
            *_table(
                ["NCHW convolution, N x C x H x W -> K", "forward", "dgrad", "wgrad"],
                (
                    [_shape(layer), *(_rate(rows[f"conv {layer.name} {pass_} nchw"]) for pass_ in PASSES)]
                    for layer in CONVOLUTIONS
                ),
            ),
            "",
            *_table(
                ["in all", "reached", "wanted"],
                ([figure.name, _value(figure), figure.target] for figure in figures(kept["rows"])),
            ),
        ]
    )


def _conditions(kept):
    machine, ceilings = kept["machine"], kept["ceilings"]
    disturbed = sum(row.get("disturbed", False) for row in kept["rows"])
    return (
        f"{machine['cpu']}, {machine['threads']} threads, {machine['capability']}, float32, torch {machine['torch']}: a peak of "
        f"{ceilings['peak_gflops']:.0f} GFLOP/s. Behind each rate, how many times faster than the best of torch, NCHW and channels_last."
        + f" Other programs disturbed {disturbed} of {len(kept['rows'])} rows."
        * bool(disturbed)
    )


def _block(text, block):
    match = re.search(rf"<!-- {block}: ([^\n]*?) -->\n(.*?)<!-- end of what was {block} -->", text, re.DOTALL)
    if match is None:
        raise record.BadRecord(
            f"the README has no block between <!-- {block}: ... --> and <!-- end of what was {block} -->"
        )
    return match


def _table(headings, rows):
    return [f"| {' | '.join(line)} |" for line in (headings, ["---"] * len(headings), *rows)]


def _shape(layer):
    words = [f"{layer.N} x {layer.C} x {layer.H} x {layer.W} -> {layer.K}, {layer.R} x {layer.S}"]
    words += [f"stride {layer.stride[0]}"] * (layer.stride[0] > 1)
    words += [f"padding {layer.padding[0]}"] * (layer.padding[0] > 0)
    return ", ".join(words + [f"{layer.groups} groups"] * (layer.groups > 1))


def _rate(row):
    if "refused" in row:
        return "refused"
    return f"{row['rate'][OURS]:.0f} GFLOP/s, {row['ratios'][row['best']]['median']:.2f}"


def _value(figure):
    if figure.value is None:
        return "-"
    return f"{figure.value:.2f}" + (f", {len(figure.misses)} of {figure.rows} below" if figure.misses else "")
