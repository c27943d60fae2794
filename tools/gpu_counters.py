"""What the hardware counts of each rung on two layers (ncu), beside what the simulator counts of the same calls.

    python -m tools.gpu_counters --output counters.json
    python -m tools.gpu_counters --output counters.json --dry      without a GPU: the simulator's side alone, of one
    small layer

Needs Nsight Compute's ncu and the permission to read counters. A row is a kernel of a pass, with all of its launches.
The file is written after each layer; of one that ncu does not get done in its share of --seconds, the simulator's side
is kept, with the reason.
"""

import argparse
import contextlib
import csv
import io
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

import convlab
from convlab._files import write_json
from convlab.explain.counting import call_of, count, planned_launches
from convlab.layers import find
from tools import run

ROOT = Path(__file__).resolve().parent.parent
torch.backends.cudnn.allow_tf32 = False  # what is counted of float32 is float32's

LAYERS = ("lenet-c3@32", "cifar-32-64@4")  # small enough for the simulator; larger ones repeat what these do
DRY_LAYERS = ("lenet-c1@1",)
PASSES = ("forward", "dgrad", "wgrad")
METRICS = {  # ours -> ncu's
    "microseconds": "gpu__time_duration.sum",
    "read_sectors": "l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum",
    "read_requests": "l1tex__t_requests_pipe_lsu_mem_global_op_ld.sum",
    "write_sectors": "l1tex__t_sectors_pipe_lsu_mem_global_op_st.sum",
    "write_requests": "l1tex__t_requests_pipe_lsu_mem_global_op_st.sum",
    "shared_wavefronts": "l1tex__data_pipe_lsu_wavefronts_mem_shared.sum",
    "bank_conflicts": "l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum",
    "dram_read": "dram__bytes_read.sum",
    "dram_written": "dram__bytes_write.sum",
    "multiply_adds": "smsp__sass_thread_inst_executed_op_ffma_pred_on.sum",
    "instructions": "smsp__inst_executed.sum",
    "warps_active": "sm__warps_active.avg.pct_of_peak_sustained_active",
    "busy": "sm__throughput.avg.pct_of_peak_sustained_elapsed",
    "registers": "launch__registers_per_thread",
    "waves": "launch__waves_per_multiprocessor",
}

MEANS = ("warps_active", "busy", "registers", "waves")


def calls_of(layer, device="cpu"):
    """(rung, pass, problem, a call on tensors of `device`) of whatever the ladder can do."""
    problem = find(layer).problem()
    for rung in convlab.algorithms():
        for pass_ in PASSES:
            if "cuda" in rung.backends and rung.supports(problem, pass_)[0]:
                yield (
                    rung,
                    pass_,
                    problem,
                    call_of(rung, problem, pass_, lambda shape, dtype: torch.randn(shape, dtype=dtype, device=device)),
                )


def target(layer):
    """What runs under ncu: everything once to warm up, then once to be profiled."""
    for _, _, _, call in calls_of(layer, "cuda"):
        call()
        torch.cuda.synchronize()
        torch.cuda.profiler.start()
        call()
        torch.cuda.synchronize()
        torch.cuda.profiler.stop()


# ---- ncu --------------------------------------------------------------------------------------------------------------


def find_ncu():
    """The command, or a reason why there is none."""
    found = shutil.which("ncu") or next(
        (str(path) for path in sorted(Path("/opt/nvidia/nsight-compute").glob("*/ncu"), reverse=True)), None
    )
    toolkit = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "bin", "ncu")
    return found or (str(toolkit) if toolkit.exists() else None)


def profiled(ncu, layer, seconds):
    """[{"kernel", a key of METRICS: value}] in the order of launches. Raises RuntimeError with what ncu said."""
    with tempfile.TemporaryDirectory() as folder:
        log, said = Path(folder, "ncu.csv"), Path(folder, "said")
        command = [
            ncu,
            "--csv",
            "--print-units",
            "base",
            "--clock-control",
            "none",
            "--profile-from-start",
            "off",
            "--log-file",
            str(log),
            "--metrics",
            ",".join(METRICS.values()),
            sys.executable,
            "-m",
            "tools.gpu_counters",
            "--target",
            layer,
        ]
        status = run_within(seconds, command, said)
        table = log.read_text(errors="replace") if log.exists() else ""
        words = " ".join((table + said.read_text(errors="replace")).split())[-600:]
    rows = parsed(table)
    if status or not rows:
        raise RuntimeError(
            "ncu: {}: {}".format(f"stopped after {seconds:.0f} s" if status is None else f"status {status}", words)
        )
    return rows


def run_within(seconds, command, said):
    """The exit status, None if it took longer. What it prints goes into the file `said`: through a pipe, what it had
    started and left behind would keep us waiting."""
    with said.open("w") as file:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:  # and all it started
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def parsed(text):
    """ncu's CSV, a line a metric: the rows of profiled()."""
    lines = text.splitlines()
    first = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    ours = {theirs: key for key, theirs in METRICS.items()}
    kernels = {}
    for row in csv.DictReader(io.StringIO("\n".join(lines[first:]))):
        if not (row.get("ID") or "").isdigit() or row.get("Metric Name") not in ours:
            continue
        kernel = kernels.setdefault(int(row["ID"]), {"kernel": row["Kernel Name"]})
        key = ours[row["Metric Name"]]
        try:
            value = float(row["Metric Value"].replace(",", ""))
        except ValueError:
            continue  # n/a on this GPU
        kernel[key] = value / 1e3 if key == "microseconds" else value  # nanoseconds
    return [kernel for _, kernel in sorted(kernels.items())]


# ---- the simulator
# ----------------------------------------------------------------------------------------------------


def simulated(traffic, kernel):
    """The simulator's side of a kernel, by the keys of METRICS that it knows."""
    rows = [row for row in traffic if row.kernel == kernel]
    sums = {}
    for row in rows:
        if row.space == "shared":
            sums["shared_wavefronts"] = sums.get("shared_wavefronts", 0) + row.wavefronts
        elif row.access in ("read", "write"):
            for key, value in (("requests", row.requests), ("sectors", row.sectors)):
                sums[f"{row.access}_{key}"] = sums.get(f"{row.access}_{key}", 0) + value
    return sums


def base_name(kernel):
    """'void convlab::gemm_kernel<..>(..)' -> 'gemm_kernel'; ncu leaves half of an unnamed namespace: 'void
    unnamed>::tiled_kernel<..>(..)'"""
    return re.search(r"(\w+)(?=[<(]|$)", kernel).group(1)


def counted(layer, rung_name, pass_):
    """What the simulator counts of a call, by kernel."""
    torch.set_num_threads(1)
    rung = next(rung for rung in convlab.algorithms() if rung.name == rung_name)
    problem = find(layer).problem()
    traffic = count(rung, problem, pass_).traffic
    return {launch.kernel: simulated(traffic, launch.kernel) for launch in planned_launches(rung, problem, pass_)}


def rows_of(layer, counts, measured):
    """A row a kernel of a pass. `counts`: counted()'s by rung and pass. `measured`: profiled()'s, a row a launch, or
    None. Raises RuntimeError where they are other launches than planned; kernels of torch among them do not matter."""
    rows, launches = {}, []
    for rung, pass_, problem, _ in calls_of(layer):
        for launch in planned_launches(rung, problem, pass_):
            key = rung.name, pass_, launch.kernel
            launches.append(key)
            row = rows.setdefault(
                key,
                {
                    "layer": layer,
                    "algorithm": rung.name,
                    "pass": pass_,
                    "kernel": launch.kernel,
                    "launches": 0,
                    "simulated": counts[rung.name, pass_][launch.kernel],
                    "measured": None,
                },
            )
            row["launches"] += 1
    if measured is not None:
        names = [base_name(kernel) for _, _, kernel in launches]
        measured = [kernel for kernel in measured if base_name(kernel["kernel"]) in names]
        seen = [base_name(kernel["kernel"]) for kernel in measured]
        if names != seen:
            raise RuntimeError(
                "ncu saw other launches than were planned: {} instead of {}".format(*differing(seen, names))
            )
        for key in rows:
            rows[key]["measured"] = together([kernel for name, kernel in zip(launches, measured) if name == key])
    return list(rows.values())


def differing(a, b):
    """Both, from where they differ."""
    first = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    return a[first : first + 5], b[first : first + 5]


def together(kernels):
    """Launches of one kernel: sums, and means of what is no sum."""
    sums = {key: sum(kernel[key] for kernel in kernels) for key in METRICS if all(key in kernel for kernel in kernels)}
    return {key: value / len(kernels) if key in MEANS else value for key, value in sums.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", help="the JSON to write")
    parser.add_argument("--dry", action="store_true", help="without a GPU and ncu")
    parser.add_argument("--seconds", type=float, default=90, help="for ncu, on all layers (default: 90)")
    parser.add_argument("--target", metavar="LAYER", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.target:
        return target(args.target)
    ncu, rows, failed, spent = None if args.dry else find_ncu(), [], {}, {}
    layers, deadline = DRY_LAYERS if args.dry else LAYERS, time.monotonic() + args.seconds
    workers = max(min(len(os.sched_getaffinity(0)) - 1, 12), 1)
    with ProcessPoolExecutor(
        workers, multiprocessing.get_context("fork")
    ) as pool:  # the simulator's side, while ncu runs
        jobs = {
            name: {
                (rung.name, pass_): pool.submit(counted, name, rung.name, pass_) for rung, pass_, _, _ in calls_of(name)
            }
            for name in layers
        }
        for i, name in enumerate(layers):
            measured, start = None, time.monotonic()
            try:
                if not args.dry:
                    if ncu is None:
                        raise RuntimeError("no ncu on PATH: install Nsight Compute")
                    measured = profiled(ncu, name, max(deadline - start, 2) / (len(layers) - i))
            except RuntimeError as error:
                failed[name] = str(error)
            spent[name] = round(time.monotonic() - start, 1)
            counts = {key: job.result() for key, job in jobs[name].items()}
            try:
                found = rows_of(name, counts, measured)
            except RuntimeError as error:
                failed[name], found = str(error), rows_of(name, counts, None)
            rows += found
            print(f"{name}: ncu {spent[name]} s, the simulator {time.monotonic() - start - spent[name]:.1f} s more")
            for row in found:
                print(line_of(row))
            if name in failed:
                print(f"{name}: not measured: {failed[name]}")
            sys.stdout.flush()
            if args.output:
                write_json(args.output, {"version": 1, "rows": rows, "failed": failed, "seconds": spent})
    return int(bool(failed))


def line_of(row):
    """simulated/measured of what both know."""
    keys = list(row["simulated"])
    both = [
        "{} {:,}/{}".format(
            key,
            row["simulated"][key],
            "{:,.0f}".format(row["measured"][key]) if row["measured"] and key in row["measured"] else "-",
        )
        for key in keys
    ]
    us = f" {row['measured']['microseconds']:.1f} us" if row["measured"] and "microseconds" in row["measured"] else ""
    return "{layer} {algorithm} {pass} {kernel}:".format(**row) + us + " simulated/measured " + ", ".join(both)


if __name__ == "__main__":
    run(main)
