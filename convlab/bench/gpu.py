"""An NVIDIA GPU: events, CUDA graphs, the names of kernels, its ceilings; and, for a rehearsal, the host with the CUDA
kernels in the simulator in its place.

A graph takes the host out of the measurement: what is timed is what the GPU does. What cannot be captured is called by
the host, and where the GPU is faster than the host, that is what is measured.
"""

import ctypes
import itertools
import os
import subprocess
import tempfile
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import torch

from .. import ops
from .._measure import Limits, Timing, one_line
from ..simulator import simulate
from ..toolchain import nvcc_candidates
from .case import OURS, PRECISIONS, dtype_of
from .device import Cpu

MB = 2**20
MARK = "spin_kernel"  # torch.cuda._sleep's
COLD_BYTES = 200 * MB  # that cold calls go round, at least; twice the cache, where that is more
COPY_BYTES, PRODUCT, TRIES = 2**31, 8192, 10  # of the ceilings: bytes read, rows and columns, timings


class NoGpu(RuntimeError):
    """There is none that convlab could run on; the message is one line."""


class Gpu(Cpu):
    """The current one."""

    type = "cuda"
    least, most = 0.4e-3, 200
    cools, graphs = False, True
    limits, quick = Limits(rounds=15, seconds=0.5, patience=0.5), Limits(rounds=3, seconds=0.5, patience=0.5)

    def __init__(self, limits=limits):
        self.limits, self.head, self._ceilings = limits, {}, None
        self.check()

    def check(self):
        """Raises NoGpu."""
        if not torch.cuda.is_available():
            raise NoGpu(f"no GPU: torch {torch.__version__} sees none")
        if not ops.has_cuda:
            raise NoGpu("convlab was built without CUDA: build it on this machine with CONVLAB_CUDA=1")

    def timing(self, run) -> Timing:
        """How long the device is busy; it knows of no disturbance."""
        before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        before.record()
        run()
        after.record()
        after.synchronize()
        return Timing(before.elapsed_time(after) / 1e3, False)

    def captured(self, run):
        """`run` as the replay of a CUDA graph. Raises whatever stands against it."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # once more: libraries choose and allocate for this stream
            run()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
        graph.replay()
        torch.cuda.synchronize()
        graph.run = run  # what it reads lives as long as the graph
        return graph.replay

    @contextmanager
    def setting(self, name, precision):
        """Convolutions and products of float32 tensors are made in this precision; cuDNN tries its algorithms and keeps
        the fastest."""
        cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
        before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark
        cudnn.allow_tf32 = matmul.allow_tf32 = precision == "tf32"
        cudnn.benchmark = True
        try:
            yield
        finally:
            cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark = before

    def heats(self, case):
        if case.grad or not case.bytes:  # a step's activations are its own data
            return {"warm": 1}
        wanted = max(COLD_BYTES, 2 * self.cache_bytes())
        fit = max(self.free_bytes() // 4 // (4 * case.bytes), 1)  # inputs lie in every layout, and there are outputs
        return {"cold": min(-(-wanted // case.bytes), fit, 64), "warm": 1}

    def cache_bytes(self) -> int:
        """Of the last cache before memory."""
        return torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size

    def free_bytes(self) -> int:
        return torch.cuda.mem_get_info()[0]

    def kernels_of(self, calls):
        try:
            found = split_at(MARK, _profiled(calls.values(), True))  # at once: to begin and to end takes long
            if len(found) != len(calls):
                found = [_profiled([call], False) for call in calls.values()]
            return dict(zip(calls, found))
        except Exception:  # noqa: BLE001  (whatever the profiler's library raises, the times are still good)
            return {}

    def clean(self):
        with suppress(RuntimeError):  # where the GPU was lost
            torch.cuda.empty_cache()

    def lost(self):
        """CUDA then repeats the error for every call."""
        try:
            torch.cuda.synchronize()
            return False
        except RuntimeError:
            return True

    def facts(self):
        p = torch.cuda.get_device_properties(torch.cuda.current_device())
        sizes = {"multiprocessors": p.multi_processor_count, "memory": p.total_memory, "l2": p.L2_cache_size}
        versions = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
        return {"gpu": p.name, "capability": f"{p.major}.{p.minor}", **sizes, **versions, "state": _nvidia_smi()}

    # ---- ceilings ----------------------------------------------------------------------------------------------------

    def floor(self, flops, bytes, precision):
        c = self.ceilings()
        arithmetic = c[f"matmul_{precision}"] if precision != "float32" else c["ffma"]
        if arithmetic and precision == "float32":  # tensor cores make a product of it of three in TF32
            arithmetic = max(arithmetic, (c["matmul_tf32"] or 0) / 3)
        return 1e6 * max(flops / arithmetic, bytes / c["copy"]) if arithmetic and c["copy"] else None

    def ceilings(self):
        """copy (bytes a second, read and written), ffma, matmul_float32 and so on (operations a second); None with a
        reason in "failed" where something stood against it."""
        if self._ceilings is None:
            self._ceilings, failed = {}, {}
            for name in ("copy", "ffma", *(f"matmul_{precision}" for precision in PRECISIONS)):
                measure, _, precision = name.partition("_")
                try:
                    self._ceilings[name] = getattr(self, f"_{measure}")(*filter(None, [precision]))
                except Exception as error:  # noqa: BLE001  (without one ceiling, the others still say something)
                    self._ceilings[name], failed[name] = None, one_line(error, 300)
                self.clean()
            self._ceilings["failed"] = failed
        return self._ceilings

    use = ceilings

    def _copy(self):
        size = min(COPY_BYTES, self.free_bytes() // 4)
        source = torch.randint(0, 127, (size,), dtype=torch.int8, device=self.type)
        target = torch.empty_like(source)
        target.copy_(source)
        return 2 * size / min(self.timing(lambda: target.copy_(source)).seconds for _ in range(TRIES))

    def _matmul(self, precision, n=PRODUCT):
        dtype = dtype_of(precision)
        a, b = (torch.randn(n, n, device=self.type, dtype=dtype) for _ in range(2))  # random: zeros run faster
        with self.setting("", precision):
            return 2 * n**3 / min(self.timing(lambda: a @ b).seconds for _ in range(3 + TRIES))

    def _ffma(self):
        major, minor = torch.cuda.get_device_capability()
        with tempfile.TemporaryDirectory() as folder:
            library = ctypes.CDLL(str(compile_ffma(Path(folder), f"{major}{minor}")))
            library.convlab_ffma_peak.restype = ctypes.c_double
            rate = library.convlab_ffma_peak(TRIES)
        if rate <= 0:
            raise RuntimeError(f"ffma.cu: CUDA error {-rate:.0f}")
        return rate


class Rehearsal(Gpu):
    """Without a GPU: no events, graphs or profiler, and its times mean nothing. Layers are to be small ones."""

    type, graphs = "cpu", False
    least, most = 0, 1
    limits = quick = Limits(rounds=1, seconds=0, patience=0)

    timing, kernels_of = Cpu.timing, Cpu.kernels_of
    check = clean = lost = lambda self: False

    @contextmanager
    def setting(self, name, precision):
        ours = simulate(order="forward", check=False) if name.startswith(OURS) else nullcontext()
        with super().setting(name, precision), ours:
            yield

    def heats(self, case):
        return {"warm": 1} if case.grad else {"cold": 2, "warm": 1}

    def free_bytes(self):
        return 16 * MB

    def facts(self):
        return {"gpu": "a rehearsal without a GPU, whose times mean nothing", "cuda": torch.version.cuda, "cudnn": None}

    def _matmul(self, precision):
        return super()._matmul(precision, 128)

    def _ffma(self):
        raise RuntimeError("a dry run has no GPU to run ffma.cu on")


def small(layer):
    """A layer for a rehearsal: of one small image with few channels."""
    if hasattr(layer, "batched"):
        return layer.batched(2, layer.name)
    if not hasattr(layer, "K"):
        return layer._replace(N=1, C=2)
    few = {} if layer.C <= 16 else {"C": 8, "K": 8, "groups": 8 if layer.groups > 1 else 1}
    return layer._replace(N=1, H=min(layer.H, max(layer.R, 8)), W=min(layer.W, max(layer.S, 8)), **few)


def compile_ffma(folder: Path, arch: str) -> Path:
    """The library that ffma.cu makes for an architecture such as "90". Raises RuntimeError without nvcc, or with what
    nvcc said."""
    nvcc = next((path for _, path in nvcc_candidates(os.environ) if os.path.exists(path)), None)
    if nvcc is None:
        raise RuntimeError("ffma.cu needs nvcc, which is not on PATH")
    target = folder / "ffma.so"
    options = ["-O3", "-shared", "-Xcompiler", "-fPIC", f"-gencode=arch=compute_{arch},code=sm_{arch}"]
    done = subprocess.run(
        [nvcc, *options, str(Path(__file__).with_name("ffma.cu")), "-o", str(target)], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"nvcc does not compile ffma.cu: {done.stderr.strip()[-500:]}")
    return target


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
    fields = "driver_version,clocks.sm,clocks.mem,clocks.max.sm,temperature.gpu,power.draw,persistence_mode"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
        return dict(zip(fields.split(","), (part.strip() for part in said.splitlines()[0].split(","))))
    except (OSError, IndexError, subprocess.SubprocessError):
        return {}
