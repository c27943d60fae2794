"""Everything that a machine with an NVIDIA GPU can tell about convlab, in one command: built, tested, sanitized,
measured, counted.

    make gpu-report                         all steps, into benchmarks/results/GPU-DATE.json and a log beside it, which
    git does not keep
    make gpu-report STEP=bench,counters     these; what a file of the same day has of other steps stays
    make gpu-report DRY=1                   without a GPU: each step's command on the host and in the simulator, nothing
    under benchmarks/

Each step is a process of its own with a time limit. One that fails or takes too long is recorded, and the next one
begins. The whole keeps to BUDGET seconds (540): a step that would not fit gets less time, or is recorded as left out;
the benchmark comes last and has what is left, 320 s on an H200 with 16 cores, and its record says how many rows it left
out. For a machine that has torch with CUDA, setuptools, ninja, pybind11, pytest and nvcc, and perhaps no network:
nothing is installed.

The exit status is 0 if every step succeeded, 1 if one did not, 3 without a GPU.
"""

import argparse
import contextlib
import datetime
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from tools import run

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
VERSION = 2  # of the format
LEAST = 10  # seconds: with less left, a step is not begun
MARGIN = 25  # seconds that a step is told less than it has: to begin, and for the row at which its time is up
TAIL = {True: 200, False: 4000}  # characters of a step's output that its record keeps, by success; the log has all
PYTHON = sys.executable
BENCH = [PYTHON, "-m", "convlab.bench", "gpu"]
KINDS = ["conv", "ladder", "pool", "activation", "step"]  # of its rows
write_json = runpy.run_path(str(ROOT / "convlab" / "_files.py"))["write_json"]  # before convlab is built


class Step(NamedTuple):
    """name: for STEP. commands: one after the other, until one fails; {data} stands for a JSON file that the record
    takes in, {seconds} for those it has. seconds: the limit of them all. needs: a program without which the step is
    left out."""

    name: str
    commands: list[list[str]]
    seconds: float
    needs: str | None = None
    environ: Mapping[str, str] = MappingProxyType({})


def steps(capability) -> list[Step]:
    """For a GPU of a compute capability such as "9.0"."""
    build = {"CONVLAB_CUDA": "1", "TORCH_CUDA_ARCH_LIST": capability}
    sanitizer = ["compute-sanitizer", "--error-exitcode", "9", "--tool"]
    subset = [PYTHON, "-m", "tools.gpu_subset"]
    return [
        Step(
            "build",
            [
                [PYTHON, "setup.py", "build_ext", "--inplace"],
                [PYTHON, "-c", "import convlab; print(convlab.build_info())"],
            ],
            150,
            environ=build,
        ),
        Step("subset", [subset, [PYTHON, "-m", "tools.tensor_core_gate", "--write"]], 60),
        Step(
            "test",
            [
                [
                    PYTHON,
                    "-m",
                    "tools.gpu_test",
                    "-m",
                    "cuda and not long",
                    "-q",
                    "--durations=10",
                    "-p",
                    "no:cacheprovider",
                ]
            ],
            150,
            environ=build,
        ),
        Step("memcheck", [[*sanitizer, "memcheck", *subset]], 60, "compute-sanitizer"),
        Step("racecheck", [[*sanitizer, "racecheck", *subset]], 60, "compute-sanitizer"),
        Step("ceilings", [[*BENCH, "ceilings", "--output", "{data}"]], 40),
        Step("counters", [[PYTHON, "-m", "tools.gpu_counters", "--seconds", "90", "--output", "{data}"]], 115),
        Step("tiles", [[*BENCH, "tiles", "--budget", "{seconds}", "--output", "{data}"]], 75),
        Step("bench", [[*BENCH, ",".join(KINDS), "--budget", "{seconds}", "--output", "{data}"]], 400),
    ]


def dry_steps() -> list[Step]:
    """The same names, with what of them goes without a GPU."""
    layers = "lenet-c1@1024,lenet-5@1024,max-lenet@1024,leaky_relu-lenet@1024"
    passes = "forward,wgrad,backward,inference,step"
    subset = [PYTHON, "-m", "tools.gpu_subset", "--simulated", "--first", "1"]
    checked = [PYTHON, "-c", "print('the subset ran in the checking simulator already')"]
    return [
        Step("build", [[PYTHON, "convlab/toolchain.py"]], 60),
        Step("subset", [subset], 120),
        Step("test", [[PYTHON, "-c", "print('without a GPU, those marked cuda are skipped')"]], 60),
        Step("memcheck", [checked], 30),
        Step("racecheck", [checked], 30),
        Step("ceilings", [[*BENCH, "ceilings", "--dry", "--output", "{data}"]], 60),
        Step("counters", [[PYTHON, "-m", "tools.gpu_counters", "--dry", "--output", "{data}"]], 120),
        Step("tiles", [[*BENCH, "tiles", "cifar-32-64@512", "wgrad", "--dry", "--output", "{data}"]], 60),
        Step(
            "bench",
            [
                [
                    *BENCH,
                    ",".join(KINDS),
                    layers,
                    passes,
                    "float32,tf32,bfloat16,float16",
                    "--dry",
                    "--budget",
                    "{seconds}",
                    "--output",
                    "{data}",
                ]
            ],
            120,
        ),
    ]


# ---- running
# ----------------------------------------------------------------------------------------------------------


class Log:
    """A file that is also printed."""

    def __init__(self, path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open("a", encoding="utf-8", errors="replace")

    def write(self, text):
        print(text, end="", flush=True)
        self.file.write(text)
        self.file.flush()


def run_step(step, seconds, log) -> dict:
    """The record of a step: ok, seconds, why (of a failure), commands, tail (of the output), data (of the file it
    wrote, or None)."""
    start = time.monotonic()
    deadline = start + min(step.seconds, seconds)
    record = {"ok": False, "why": "", "commands": [], "data": None}
    said = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data.json")
        if step.needs and not shutil.which(step.needs):
            record["why"] = f"left out: no {step.needs} on PATH"
        elif seconds < LEAST:
            record["why"] = "left out: the time is up"
        else:
            for command in step.commands:
                stands_for = {
                    "{data}": str(data),
                    "{seconds}": str(max(round(deadline - time.monotonic() - MARGIN), 1)),
                }
                command = [stands_for.get(word, word) for word in command]
                record["commands"].append(
                    ["python" if word == PYTHON else word.replace(folder + os.sep, "") for word in command]
                )
                record["why"] = run_command(command, step.environ, deadline, log, said)
                if record["why"]:
                    break
            record["ok"] = not record["why"]
        if data.exists():  # also of a step that was stopped: what it wrote is whole
            try:
                record["data"] = json.loads(data.read_text())
            except ValueError as error:
                record["why"] = record["why"] or f"wrote no JSON: {error}"
                record["ok"] = False
    return {**record, "seconds": round(time.monotonic() - start, 1), "tail": "".join(said)[-TAIL[record["ok"]] :]}


def run_command(command, environ, deadline, log, said) -> str:
    """Runs it, with its output into the log; returns why it failed, or ""."""
    log.write(f"$ {' '.join('python' if word == PYTHON else word for word in command)}\n")
    environ = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        **environ,
    }
    try:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        return f"cannot be started: {error}"
    late = Alarm(process, deadline)
    try:
        for line in process.stdout:
            log.write(line)
            said.append(line)
        code = process.wait()
    except BaseException:  # interrupted: nothing that was started goes on
        late.kill()
        raise
    finally:
        late.cancel()
    if late.rang:
        return f"stopped after {late.seconds:.0f} s"
    return "" if code == 0 else f"killed by signal {-code}" if code < 0 else f"exit status {code}"


class Alarm:
    """Ends a process and all it started at a deadline."""

    def __init__(self, process, deadline):
        self.process, self.rang, self.seconds = process, False, max(deadline - time.monotonic(), 0.1)
        self.timer = threading.Timer(self.seconds, self.ring)
        self.timer.daemon = True
        self.timer.start()

    def ring(self):
        self.rang = True
        self.kill()

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def cancel(self):
        self.timer.cancel()


# ---- the report
# -------------------------------------------------------------------------------------------------------


def begun(path, gpu) -> dict:
    """The report in `path`, of an earlier part of the day, or a new one."""
    try:
        report = json.loads(path.read_text())
        if report["version"] == VERSION and report["command"] == "gpu-report" and isinstance(report["steps"], dict):
            return report
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {"version": VERSION, "command": "gpu-report", "gpu": gpu, "when": now(), "steps": {}}


def now():
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def slug(gpu):
    """'NVIDIA H200' -> 'nvidia-h200'"""
    return re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")


def with_toolkit(path) -> str:
    """PATH, and behind it where the CUDA toolkit has what is not always on it."""
    home = os.environ.get("CUDA_HOME") or "/usr/local/cuda"
    return os.pathsep.join([path, os.path.join(home, "bin"), os.path.join(home, "compute-sanitizer")])


def find_gpu():
    """(name, compute capability), or why there is none."""
    try:
        import torch
    except ImportError as error:
        return f"{error} ({PYTHON}); PYTHON=... names another"
    if not torch.cuda.is_available():
        return f"torch sees none in this environment ({PYTHON})"
    return torch.cuda.get_device_name(), "{}.{}".format(*torch.cuda.get_device_capability())


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--step",
        default=os.environ.get("STEP", ""),
        metavar="NAME[,NAME]",
        help="these steps only (default: $STEP, or all)",
    )
    parser.add_argument(
        "--dry",
        action="store_true",
        default=os.environ.get("DRY", "") not in ("", "0"),
        help="without a GPU (default: $DRY)",
    )
    parser.add_argument(
        "--budget",
        type=float,
        default=float(os.environ.get("BUDGET") or 540),
        help="seconds for all (default: $BUDGET, or 540)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="default: benchmarks/results/GPU-DATE.json, a dry run's in a temporary folder",
    )
    args = parser.parse_args(argv)
    start = time.monotonic()
    os.environ["PATH"] = with_toolkit(os.environ.get("PATH", os.defpath))
    if args.dry:
        gpu, todo = "dry run", dry_steps()
    else:
        found = find_gpu()
        if isinstance(found, str):
            print(f"gpu-report: no GPU: {found}; DRY=1 goes without", file=sys.stderr)
            return 3
        gpu, todo = found[0], steps(found[1])
    wanted = [name for name in args.step.split(",") if name]
    for name in wanted:
        if name not in [step.name for step in todo]:
            parser.error(f"step {name!r} is none of: {', '.join(step.name for step in todo)}")
    folder = Path(tempfile.mkdtemp(prefix="gpu-report-")) if args.dry else RESULTS
    path = args.output or folder / f"{slug(gpu)}-{now()[:10]}.json"
    log = Log(path.with_suffix(".log"))
    log.write(f"gpu-report: {gpu}, {now()}, into {path.name}\n")
    report = begun(path, gpu)
    for step in todo:
        if wanted and step.name not in wanted:
            continue
        log.write(f"\n== {step.name} ==\n")
        done = run_step(step, args.budget - (time.monotonic() - start), log)
        report["steps"][step.name] = {"when": now(), **done}
        write_json(path, report)  # after each: what is done stays done
        log.write(f"== {step.name}: {'ok' if done['ok'] else done['why']} in {done['seconds']} s ==\n")
    ran = {name: done for name, done in report["steps"].items() if not wanted or name in wanted}
    log.write(
        "\n"
        + "".join(
            f"{name:10} {done['seconds']:>7} s  {'ok' if done['ok'] else done['why']}\n" for name, done in ran.items()
        )
    )
    log.write(f"wrote {os.path.relpath(path)} in {time.monotonic() - start:.0f} s\n")
    return int(not all(done["ok"] for done in ran.values()))


if __name__ == "__main__":
    run(main)
