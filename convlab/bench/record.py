"""A run as JSON."""

import datetime
import json
import os
import platform
import subprocess
from pathlib import Path

import torch

from .. import __version__, build_info
from .ceilings import last_level_cache

FOLDER = Path("benchmarks/results")
VERSION = 1  # of the format
INFLUENTIAL = ("OMP_", "GOMP_", "KMP_", "CONVLAB_", "ONEDNN_", "DNNL_")  # environment variables


class BadRecord(RuntimeError):
    """A file is no record of a run; the message names it and says why."""


def machine():
    """Hardware, versions and state of the machine now."""
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
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


def default_path(command, when):
    """Where the run of `command` that began at `when` is recorded, unless one says otherwise."""
    return FOLDER / f"{command}-{when[:19].replace(':', '')}.json"


def save(record, path):
    """Writes the record: at every moment `path` is the old file or the new one, whole."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(record, indent=1) + "\n")
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load(path):
    """The record in `path`. Raises BadRecord."""
    try:
        record = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise BadRecord(f"{path} cannot be read as the JSON of a run: {error}") from error
    if not isinstance(record, dict) or record.get("version") != VERSION or "rows" not in record:
        raise BadRecord(f"{path} is no record of `python -m convlab.bench` of format {VERSION}")
    return record


def rounded(value):
    """The same with floats to five digits: what is beyond is noise."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, (list, tuple)) else value


def _cpu_name():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _commit():
    """What git calls the source this runs from, or None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    run = subprocess.run(["git", "-C", root, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return run.stdout.strip() or None
