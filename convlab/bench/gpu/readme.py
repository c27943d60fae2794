"""README.md's tables of a GPU, from the JSON of `make gpu-report`."""

import json
from pathlib import Path

from ...algorithms import PASSES
from ..case import OURS
from ..record import BadRecord

COMMAND = "gpu-report"
PEERS = ("torch nchw", "torch channels_last")


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
    """The block's contents. Raises BadRecord for a report without a benchmark of what convlab does unasked, on a GPU."""
    bench = report["steps"].get("bench", {}).get("data")
    if not bench or bench["dry"] or any(bench["options"][key] for key in ("layers", "passes", "precision", "filter")) or bench["options"]["algo"] != "auto":
        raise BadRecord("the README shows what `make gpu-report` measures on a GPU: this report has no benchmark, a dry one or a part of one")
    rows = [row for row in bench["rows"] if "refused" not in row]
    lines = [_conditions(report, bench), ""]
    for precision in ("float32", "bfloat16"):
        convolutions = {(row["layer"], row["pass"]): row for row in rows if row["kind"] == "conv" and row["precision"] == precision}
        heads = [f"{precision} convolution", *PASSES]
        lines += _table(heads, ([layer, *(_cell(convolutions.get((layer, p))) for p in PASSES)] for layer in dict.fromkeys(layer for layer, _ in convolutions)))
        lines.append("")
    steps = [row for row in rows if row["kind"] == "step"]
    names = list(dict.fromkeys(name for row in steps for name in row["ways"]))
    lines += _table(["training step, us", *names], ([f"{row['layer']}, {row['precision']}", *(_us(row["ways"].get(n)) for n in names)] for row in steps))
    return "\n".join(lines)


def _conditions(report, bench):
    m, c = bench["machine"], bench["ceilings"]
    refused, left = sum("refused" in row for row in bench["rows"]), bench["left_out"]
    tflops = ", ".join(f"{name} {c[key] / 1e12:.0f}" for name, key in
                       (("multiply-adds", "ffma"), ("cuBLAS TF32", "matmul_tf32"), ("cuBLAS bfloat16", "matmul_bfloat16")) if c[key])  # fmt: skip
    outcomes = ", ".join(f"{name} {'ok' if done['ok'] else done['why']}" for name, done in report["steps"].items())
    return (
        f"{m['gpu']}, torch {m['torch']}, CUDA {m['cuda']}, cuDNN {m['cudnn']}, {bench['when'][:10]}. Ceilings: "
        + (f"copy {c['copy'] / 1e9:.0f} GB/s, " if c["copy"] else "") + f"TFLOP/s of {tflops}. In a cell: convlab's microseconds, cold, and the floor; how "
        "many times faster than the best of torch, NCHW and channels_last with cudnn.benchmark, in the same precision"
        ", and, of float32, than torch in TF32. "
        + f"{refused} rows were refused for wrong outputs or errors. " * bool(refused) + f"{left} rows were left out for want of time. " * bool(left)
        + f"Steps of the report: {outcomes}."
    )  # fmt: skip


def _cell(row):
    if row is None:
        return "-"
    ours, floor = row["ways"][OURS]["cold"]["median"], row["floor"][row["precision"]]
    cells = [f"{ours:.3g}" + (f" of {floor:.3g}" if floor else "")]
    for suffix in ("", " tf32"):
        ratios = [row["ratios"][peer + suffix]["cold"]["median"] for peer in PEERS if "cold" in row["ratios"].get(peer + suffix, {})]
        cells += [f"{min(ratios):.2f}"] * bool(ratios)
    return ", ".join(cells)


def _us(way):
    return f"{way['warm']['median']:.4g}" if way and "warm" in way else "-"


def _table(headings, rows):
    return [f"| {' | '.join(line)} |" for line in (headings, ["---"] * len(headings), *rows)]
