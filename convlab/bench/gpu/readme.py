"""README.md's tables of a GPU, from the JSON of `make gpu-report`."""

import json
from pathlib import Path

from ..._algorithms import PASSES
from ..case import LAYOUTS, OURS
from ..record import BadRecord
from ..targets import geometric_mean
from .report import heat_of

COMMAND = "gpu-report"
PEERS = ("torch nchw", "torch channels_last")
TF32_PEERS = (*PEERS, *(f"{peer} tf32" for peer in PEERS))
COLUMNS = {
    "float32": ("float32", PEERS),
    "float32, torch also in TF32": ("float32", TF32_PEERS),
    "bfloat16": ("bfloat16", PEERS),
}  # of the summary
FAMILIES = {"lenet": "LeNet's", "cifar": "the CIFAR network's", "resnet": "ResNet's"}


def load(path) -> dict:
    """The report in `path`. Raises BadRecord."""
    try:
        report = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise BadRecord(f"{path} cannot be read as the JSON of a report: {error}") from error
    if not isinstance(report, dict) or report.get("command") != COMMAND or "steps" not in report:
        raise BadRecord(f"{path} is no report of `make gpu-report`")
    return report


def tables(report) -> str:
    """The block's contents. Raises BadRecord for a report without a benchmark of what convlab does unasked, on a
    GPU."""
    bench = report["steps"].get("bench", {}).get("data")
    if (
        not bench
        or bench["dry"]
        or any(bench["options"][key] for key in ("layers", "passes", "precision", "filter"))
        or bench["options"]["algo"] != "auto"
    ):
        raise BadRecord(
            "the README shows what `make gpu-report` measures on a GPU: this report has no benchmark, a dry one or a part of one"
        )
    rows = {(row["kind"], row["layer"], row["pass"], row["precision"]): row for row in bench["rows"]}
    parts = [
        _in_all(bench["machine"]["gpu"], bench["rows"]),
        _conditions(report, bench),
        _convolutions(rows),
        _pooling(rows),
        _rungs(rows),
        _counted(report),
        _steps(rows),
    ]
    return "\n\n".join(part for part in parts if part)


def _conditions(report, bench):
    m, c = bench["machine"], bench["ceilings"]
    driver = f", driver {m['state']['driver_version']}" if m.get("state") else ""
    rates = {
        "multiply-adds": "ffma",
        "cuBLAS float32": "matmul_float32",
        "cuBLAS TF32": "matmul_tf32",
        "cuBLAS bfloat16": "matmul_bfloat16",
    }
    ceilings = [f"copy {c['copy'] / 1e9:,.0f} GB/s"] * bool(c["copy"])
    ceilings += [f"{name} {c[key] / 1e12:.0f} TFLOP/s" for name, key in rates.items() if c.get(key)]
    refused, left = sum("refused" in row for row in bench["rows"]), bench["left_out"]
    missed = [f"{name} ({done['why']})" for name, done in report["steps"].items() if not done["ok"]]
    return (
        f"{m['gpu']}{driver}, torch {m['torch']}, CUDA {m['cuda']}, cuDNN {m['cudnn']}, {bench['when'][:10]}. Ceilings, measured: {', '.join(ceilings)}. "
        "Single calls are timed in CUDA graphs, on more data than the second cache holds, torch's with `cudnn.benchmark`. A cell below: "
        "microseconds; the floor, which is what operations and bytes take at the ceilings, as a share of them; and how many times as fast as "
        "torch at its best, a convolution in either layout, pooling in the same."
        + f" {refused} rows were refused for wrong outputs or errors." * bool(refused)
        + f" {left} rows were left out: {bench.get('why_left_out', 'the time was up')}." * bool(left)
        + f" Steps of the report that failed: {', '.join(missed)}." * bool(missed)
    )


def _in_all(gpu, rows):
    """A sentence and a table: how many times as fast as torch at its best, by what it is that is timed and by
    precision."""
    groups = {}
    kinds = ("step", "conv", "pool", "act")
    for row in sorted(
        (row for row in rows if row["kind"] in kinds and "refused" not in row), key=lambda row: kinds.index(row["kind"])
    ):
        for column, (precision, peers) in COLUMNS.items():
            if row["precision"] == precision:
                for name, ratio in _times_as_fast(row, peers):
                    groups.setdefault(name, {}).setdefault(column, []).append(ratio)
    means = {name: geometric_mean(found["float32"]) for name, found in groups.items() if "float32" in found}
    said = [
        f"{word}: {', '.join(found)}"
        for word, faster in (("faster than torch at its best", True), ("slower", False))
        if (found := [f"{name} ({mean:.2f} times)" for name, mean in means.items() if (mean >= 1) == faster])
    ]
    lines = [[name, *(_spread(found.get(column)) for column in COLUMNS)] for name, found in groups.items()]
    sentence = f"On an {gpu}, in float32 and by geometric means, {'; '.join(said)}." if said else ""
    return "\n\n".join(
        part for part in (sentence, _table(["times as fast as torch: mean (least to most)", *COLUMNS], lines)) if part
    )


def _times_as_fast(row, peers):
    """(what is timed, how many times as fast as the best of `peers` it is) of a row, for every comparison in it."""
    if row["kind"] == "conv":
        family = row["layer"].split("-")[0]
        found = [(f"{FAMILIES.get(family, family)} convolutions", _ratio(row, OURS, peers))]
    elif row["kind"] == "step":
        found = [("training steps as CUDA graphs", _ratio(row, f"{OURS} graph", [f"{peer} graph" for peer in peers]))]
        found += [("training steps called one by one", _ratio(row, OURS, [*peers, "torch.compile nchw"]))]
    elif peers != PEERS:
        found = []  # nothing is multiplied
    elif row["kind"] == "pool":
        found = [(f"pooling in {layout}", _ratio(row, _ours_in(layout), [f"torch {layout}"])) for layout in LAYOUTS]
    else:
        found = [("leaky ReLU", _ratio(row, OURS, peers))]
    return [(name, ratio) for name, ratio in found if ratio]


def _spread(ratios):
    return f"{geometric_mean(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else "-"


def _convolutions(rows):
    lines = []
    for layer in _layers(rows, "conv", "float32"):
        cells = [rows.get(("conv", layer, pass_, "float32")) for pass_ in PASSES]
        floors = [us for row in cells if row and (us := row.get("floor", {}).get("float32"))]
        lines.append([layer, _us(max(floors)) if floors else "-", *(_cell(row, OURS, PEERS) for row in cells)])
    return _table(["float32 convolution @ batch", "floor", *PASSES], lines)


def _pooling(rows):
    lines = []
    for kind in ("pool", "act"):
        for layer in _layers(rows, kind, "float32"):
            forward, backward = (rows.get((kind, layer, pass_, "float32")) for pass_ in ("forward", "backward"))
            lines.append(
                [
                    layer,
                    *(
                        _cell(row, _ours_in(layout), [f"torch {layout}"])
                        for layout in LAYOUTS
                        for row in (forward, backward)
                    ),
                ]
            )
    return _table(
        [
            "float32 pooling and leaky ReLU @ batch",
            *(f"{pass_} {layout}" for layout in LAYOUTS for pass_ in ("forward", "backward")),
        ],
        lines,
    )


def _rungs(rows):
    found = [row for row in rows.values() if row["kind"] == "ladder" and "refused" not in row]
    names = [name for name in dict.fromkeys(name for row in found for name in row["ways"]) if name != OURS]
    lines = []
    for layer in _layers(rows, "ladder", "float32"):
        times = [[_time(rows.get(("ladder", layer, pass_, "float32")), name) for pass_ in PASSES] for name in names]
        lines.append([layer, *("-" if set(cell) == {"-"} else " / ".join(cell) for cell in times)])
    return _table([f"rungs, us: {' / '.join(PASSES)}", *(name.removeprefix(f"{OURS} ") for name in names)], lines)


def _steps(rows):
    found = {(layer, precision): row for (kind, layer, _, precision), row in rows.items() if kind == "step"}
    names = [
        name
        for name in dict.fromkeys(name for row in found.values() for name in row.get("ways", ()))
        if not name.endswith(" graph")
    ]
    lines = []
    for (layer, precision), row in found.items():
        cells = [
            " / ".join(_time(row, way) for way in (name, f"{name} graph") if way in row.get("ways", ())) or "-"
            for name in names
        ]
        lines.append([f"{layer}, {precision}", *cells])
    return _table(["training step, us: eager / CUDA graph", *names], lines)


def _counted(report):
    """A sentence: the simulator's counts of the rungs' kernels beside the hardware's."""
    rows = [row for row in (report["steps"].get("counters", {}).get("data") or {}).get("rows", ()) if row["measured"]]
    both = [
        (row["simulated"][key], row["measured"][key])
        for row in rows
        for key in row["simulated"]
        if key in row["measured"] and key != "shared_wavefronts"
    ]
    shared = [
        row["measured"][key] / row["simulated"][key]
        for key in ["shared_wavefronts"]
        for row in rows
        if row["simulated"].get(key) and key in row["measured"]
    ]
    if not both or not shared:
        return ""
    layers, same, close = (
        list(dict.fromkeys(row["layer"] for row in rows)),
        sum(a == b for a, b in both),
        sum(0.9 <= ratio <= 1.1 for ratio in shared),
    )
    return (
        f"Counted by the hardware (`ncu`) in the {len(rows)} kernels of the rungs on {' and '.join(layers)}: requests and sectors of device memory are "
        f"what the simulator counts, to the last one, in {same} of {len(both)} counts; wavefronts of shared memory are within 10 % in {close} of {len(shared)}."
    )


def _layers(rows, kind, precision):
    return list(
        dict.fromkeys(layer for kind_, layer, _, precision_ in rows if (kind_, precision_) == (kind, precision))
    )


def _median(row, name):
    way = row["ways"].get(name, {}) if row and "refused" not in row else {}
    return way[heat_of(way)]["median"] if "warm" in way else None


def _ratio(row, name, peers):
    """How many times as fast as the best of `peers` the way `name` is: of convlab's first by the rounds of the row, of
    others by medians."""
    if name == OURS:
        return min(
            (ratio[heat_of(row["ways"][peer])]["median"] for peer in peers if (ratio := row["ratios"].get(peer))),
            default=None,
        )
    ours, best = _median(row, name), min((us for peer in peers if (us := _median(row, peer))), default=None)
    return ours and best and best / ours


def _ours_in(layout):
    """The name of convlab's way of pooling."""
    return OURS if layout == "nchw" else f"{OURS} {layout}"


def _cell(row, name, peers):
    """Microseconds, the floor's share of them, and how many times as fast as the best of `peers`."""
    ours = _median(row, name)
    if ours is None:
        return "refused" if row and "refused" in row else "-"
    floor, ratio = row["floor"]["float32"], _ratio(row, name, peers)
    return ", ".join(
        [_us(ours), *(f"{100 * us / ours:.0f} %" for us in [floor] if us), *(f"{r:.2f}" for r in [ratio] if r)]
    )


def _time(row, name):
    us = _median(row, name)
    return _us(us) if us else "-"


def _us(us):
    return f"{us:,.0f}" if us >= 99.95 else f"{us:.3g}"


def _table(headings, rows):
    return "\n".join(f"| {' | '.join(line)} |" for line in (headings, ["---"] * len(headings), *rows)) if rows else ""
