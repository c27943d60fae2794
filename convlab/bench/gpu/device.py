"""Where the benchmark runs: the current GPU, or, in a dry run, the host, with the CUDA kernels in the simulator."""

import itertools
import subprocess
import time
from contextlib import nullcontext

import torch

from ...simulator import simulate

MB = 2**20
MARK = "spin_kernel"  # torch.cuda._sleep's


class NoGpu(RuntimeError):
    """There is no GPU that convlab could run on; the message is one line."""


class Device:
    """type: what tensors are told. A dry run has no events, graphs or profiler, and its times mean nothing."""

    def __init__(self, dry: bool = False):
        """Raises NoGpu."""
        self.dry = dry
        self.type = "cpu" if dry else "cuda"
        if dry:
            return
        from ... import ops

        if not torch.cuda.is_available():
            raise NoGpu(f"no GPU: torch {torch.__version__} sees none")
        if not ops.has_cuda:
            raise NoGpu("convlab was built without CUDA: build it on this machine with CONVLAB_CUDA=1")

    def synchronize(self):
        if not self.dry:
            torch.cuda.synchronize()

    def lost(self) -> bool:
        """Whether an earlier error left nothing that could be run on the GPU in this process: CUDA then repeats it for
        every call."""
        try:
            self.synchronize()
            return False
        except RuntimeError:
            return True

    def seconds(self, call) -> float:
        """How long the device is busy with `call()`."""
        if self.dry:
            start = time.perf_counter()
            call()
            return time.perf_counter() - start
        before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        before.record()
        call()
        after.record()
        after.synchronize()
        return before.elapsed_time(after) / 1e3

    def captured(self, call, warm=3):
        """`call` as a CUDA graph to replay, after so many calls to warm up. Raises whatever stands against it; never
        captures in a dry run."""
        if self.dry:
            raise RuntimeError("a dry run captures nothing")
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # warm: libraries choose and allocate now
            for _ in range(warm):
                call()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            kept = call()
        graph.kept = call, kept  # what it reads and what it writes live as long as the graph
        return graph

    def simulating(self):
        """Inside, convlab's functions on this device's tensors run the CUDA kernels."""
        return simulate(order="forward", check=False) if self.dry else nullcontext()

    def ours(self, call):
        """A call of convlab's as it is timed: in a dry run, inside simulating()."""

        def simulated():
            with self.simulating():
                return call()

        return simulated if self.dry else call

    def cache_bytes(self) -> int:
        """Of the last cache before memory."""
        return MB if self.dry else torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size

    def free_bytes(self) -> int:
        return 256 * MB if self.dry else torch.cuda.mem_get_info()[0]

    def clean(self):
        if not self.dry:
            torch.cuda.empty_cache()

    def kernels_of(self, calls: dict) -> dict[str, list[str] | None]:
        """By name, the names of the kernels that each of `calls` launches, in order; None where the profiler cannot be
        had."""
        if self.dry:
            return dict.fromkeys(calls)
        try:
            found = split_at(MARK, _profiled(calls.values(), True))  # at once: to begin and to end takes long
            if len(found) != len(calls):
                found = [_profiled([call], False) for call in calls.values()]
            return dict(zip(calls, found))
        except Exception:  # noqa: BLE001  (whatever the profiler's library raises, the times are still good)
            return dict.fromkeys(calls)

    def facts(self) -> dict:
        """Hardware and versions, for the record."""
        versions = {
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version() if not self.dry else None,
        }
        if self.dry:
            return {"gpu": "dry run", "capability": None, **versions}
        p = torch.cuda.get_device_properties(torch.cuda.current_device())
        return {
            "gpu": p.name,
            "capability": f"{p.major}.{p.minor}",
            "multiprocessors": p.multi_processor_count,
            "memory": p.total_memory,
            "l2": p.L2_cache_size,
            **versions,
            "state": _nvidia_smi(),
        }


def _profiled(calls, marked) -> list[str]:
    """The kernels of `calls`, one after the other, with a MARK before each call's."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        for call in calls:
            if marked:
                torch.cuda._sleep(1)
            call()
            torch.cuda.synchronize()
    events = [e for e in profiled.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    return [e.name[:200] for e in sorted(events, key=lambda e: e.time_range.start)]


def split_at(mark, names) -> list[list[str]]:
    """What follows each name that has `mark` in it."""
    starts = [i for i, name in enumerate(names) if mark in name] + [len(names)]
    return [names[a + 1 : b] for a, b in itertools.pairwise(starts)]


def _nvidia_smi() -> dict:
    """The driver, and the GPU's clocks, temperature and power now; empty where nvidia-smi is missing."""
    fields = [
        "driver_version",
        "clocks.sm",
        "clocks.mem",
        "clocks.max.sm",
        "temperature.gpu",
        "power.draw",
        "persistence_mode",
    ]
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=" + ",".join(fields), "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
        )
        return (
            dict(zip(fields, (part.strip() for part in done.stdout.splitlines()[0].split(","))))
            if done.returncode == 0
            else {}
        )
    except (OSError, IndexError, subprocess.SubprocessError):
        return {}
