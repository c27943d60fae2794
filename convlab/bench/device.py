"""Where cases run: what a CPU and a GPU (gpu.py) do differently is a method or a constant of these classes."""

import time
from contextlib import contextmanager
from pathlib import Path

import torch

from .. import cpu
from .._measure import Limits, Timing, best, timed, waited
from .case import ROUNDED

CEILING_SECONDS = 0.3  # to look for one
SMALLEST, LARGEST = 2**18, 2**29  # bytes that a copy reads and writes together


def last_level_cache():
    """Bytes of the largest cache that Linux names, or 32 MiB where it names none."""
    sizes = [path.read_text().strip() for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    return max(
        (int(size[:-1]) * {"K": 2**10, "M": 2**20}[size[-1]] for size in sizes if size[-1] in "KM"), default=32 * 2**20
    )


class Cpu:
    """So many threads of the machine's. type: torch's name of it. least: seconds that a timing takes at least, thousands
    of times the clock's resolution and the loop's own cost; most: calls of a timing. cools: whether a call that is not
    timed comes before each timing. graphs: whether it has any."""

    type = "cpu"
    least, most = 1.5e-3, 10**6
    cools, graphs = True, False
    clock, waited = staticmethod(time.perf_counter), staticmethod(waited)
    limits, quick = Limits(), Limits(rounds=10, seconds=0.3, patience=1)

    def __init__(self, threads, cold=False, limits=limits):
        self.threads, self.cold, self.limits = threads, cold, limits
        self.head = {"threads": threads}  # what a row says of the device
        self._found = {}  # "fma", or the bytes of a copy: (rate, whether that was disturbed)

    def use(self):
        torch.set_num_threads(self.threads)

    def facts(self) -> dict:
        """Of the machine, for the record."""
        return {}

    def timing(self, run) -> Timing:
        return timed(run, self.clock, self.waited)

    @contextmanager
    def setting(self, name, precision):
        """A context for the calls of a way: torch's switch for float32 says what the precision does."""
        switch = torch.backends.mkldnn.conv
        if precision not in ROUNDED:
            yield
            return
        before, switch.fp32_precision = switch.fp32_precision, precision
        try:
            yield
        finally:
            switch.fp32_precision = before

    def heats(self, case) -> dict[str, int]:
        """How many sets of the case's tensors calls go round, by whether that leaves data cold or warm."""
        if self.cold and case.bytes and not case.grad:
            return {"cold": 2 * last_level_cache() // case.bytes + 2}
        return {"warm": 1}

    def kernels_of(self, calls) -> dict[str, list[str]]:
        """By name, the kernels that each of `calls` launches, in order; none where they have no names."""
        return {}

    def clean(self):
        """Gives memory back, between rows."""

    def lost(self) -> bool:
        """Whether an earlier error left nothing that could be run in this process."""
        return False

    def floor(self, flops, bytes, precision) -> float | None:
        """The least number of microseconds that so much arithmetic and traffic can take: at the rate of multiply-adds
        in registers, in float32 alone, and of a copy of about so many bytes, cached if those are. None where that is
        unknown. A ceiling that other programs disturbed is too low: it is looked for again when it is next asked for."""
        if precision != "float32":
            flops = 0
        if not flops and not bytes:
            return None
        size = min(max(1 << (bytes - 1).bit_length(), SMALLEST), LARGEST)
        seconds = [flops / self._reached("fma", self._fma)] if flops else []
        return 1e6 * max([*seconds, bytes / self._reached(str(size), lambda: self._copy(size))])

    def ceilings(self) -> dict:
        """What was found so far. fma: operations a second in float32; copy: bytes a second, read and written, by how
        many a copy reads and writes."""
        rates = {key: rate for key, (rate, _) in self._found.items()}
        return self.head | {
            "fma": rates.pop("fma", None),
            "copy": dict(sorted(rates.items(), key=lambda item: int(item[0]))),
            "disturbed": any(disturbed for _, disturbed in self._found.values()),
        }

    def _reached(self, key, measure):
        before, disturbed = self._found.get(key, (0, True))
        if disturbed:
            rate, disturbed = measure()
            self._found[key] = max(rate, before), disturbed
        return self._found[key][0]

    def _fma(self):
        seconds = min(CEILING_SECONDS, self.limits.seconds) / 10
        return max(cpu.fma_peak(seconds, self.threads) for _ in range(10)), False

    def _copy(self, size):
        source, target = torch.zeros(size // 8), torch.zeros(size // 8)
        repeats = max(1, 2**24 // size)  # a timing that the clock resolves

        def copies():
            for _ in range(repeats):
                target.copy_(source)

        limits = self.limits._replace(seconds=min(CEILING_SECONDS, self.limits.seconds))
        timing = best(copies, limits, self.clock, self.waited)
        return repeats * size / timing.seconds, timing.disturbed
