"""A run as JSON: compact in its file, with rows of dicts in memory."""

import datetime
import json
import os
import platform
import subprocess
from pathlib import Path

import torch

from .. import __version__, _files, build_info
from .case import HEAD
from .device import last_level_cache

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path("benchmarks/results")
VERSION = 2  # of the format
REPORT = "gpu-report"  # the command of a report, whose steps hold the record of a run
TIMES = ("median", "q1", "q3", "least", "ratio", "ratio_q1", "ratio_q3", "rounds", "calls", "captured", "faults")
INFLUENTIAL = ("OMP_", "GOMP_", "KMP_", "CONVLAB_", "ONEDNN_", "DNNL_", "ATEN_")  # environment variables


class BadRecord(RuntimeError):
    """A file is no record of a run; the message names it and says why."""


def save(record, path):
    """Times become lists, in the order of TIMES; names of kernels stand in the file once, and ways have their places."""
    names = {}

    def listed(times):
        values = [times.get(key) for key in TIMES]
        return values[: len(TIMES) - next(i for i, value in enumerate(reversed(values)) if value is not None)]

    rows = [_row(row, listed, lambda found: [names.setdefault(n, len(names)) for n in found]) for row in record["rows"]]
    _files.write_json(path, record | {"times": TIMES, "kernels": list(names), "rows": rows})


def load(path, step="bench"):
    """The record in `path`, or that of a step of the report there. Raises BadRecord."""
    return opened(read(path), path, step)


def opened(record, path, step="bench"):
    """A record as it stands in the file `path`, or that of a step of a report, with rows of dicts. Raises BadRecord."""
    if record.get("command") == REPORT:
        record = (record.get("steps", {}).get(step) or {}).get("data") or {}
    if record.get("version") != VERSION or "rows" not in record:
        raise BadRecord(f"{path} has no record of `python -m convlab.bench` of format {VERSION}")
    record = dict(record)
    times, names = record.pop("times"), record.pop("kernels")
    named = lambda values: dict(zip(times, values))  # noqa: E731
    return record | {"rows": [_row(row, named, lambda at: [names[i] for i in at]) for row in record["rows"]]}


def read(path) -> dict:
    """The JSON in `path`. Raises BadRecord."""
    try:
        record = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise BadRecord(f"{path} cannot be read as the JSON of a run: {error}") from error
    return record if isinstance(record, dict) else {}


def _row(row, times, kernels):
    """A row with the times of its ways, and the kernels, as these functions make them."""
    change = {"cold": times, "warm": times, "kernels": kernels}
    ways = {
        name: {key: change[key](value) if key in change else value for key, value in way.items()}
        for name, way in row.get("ways", {}).items()
    }
    head = {key: value for key, value in row.items() if key != "ways"}
    return rounded(head | ({"ways": ways} if ways else {}))


def rounded(value):
    """The same with floats to five digits: what is beyond is noise."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, (list, tuple)) else value


def row_id(row):
    """What tells it from others, in words."""
    threads = f" {row['threads']} thread{'s' * (row['threads'] > 1)}" if "threads" in row else ""
    return " ".join(row[key] for key in HEAD) + threads


def machine():
    """Hardware, versions and state of the machine now."""
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "last_level_cache": last_level_cache(),
        "load_before": os.getloadavg()[0],
        "environment": {key: value for key, value in sorted(os.environ.items()) if key.startswith(INFLUENTIAL)},
        "convlab": __version__,
        "commit": _commit(),
        "system": platform.platform(),
        **{key: value for key, value in build_info().items() if key in ("cxx", "torch", "torch_built", "python")},
    }


def now():
    """The time, in UTC, as ISO 8601 has it."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _cpu_name():
    info = Path("/proc/cpuinfo")
    named = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return named[0].split(":", 1)[1].strip() if named else platform.processor()


def _commit():
    """What git calls the source this runs from, or None outside a checkout."""
    if not (ROOT / ".git").exists():
        return None
    run = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return run.stdout.strip() or None
