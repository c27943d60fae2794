"""What this machine reaches: multiply-adds a second, and bytes a second of a copy. Measured, in the run that uses
them."""

from pathlib import Path

import torch

from .. import cpu
from .._measure import Limits, best

SECONDS = 0.3  # to look for a ceiling
PEAK_TRIES = 10
SMALLEST, LARGEST = 2**18, 2**29  # bytes that a copy reads and writes together


def last_level_cache():
    """Bytes of the largest cache that Linux names, or 32 MiB where it names none."""
    sizes = [path.read_text().strip() for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    return max(
        (int(size[:-1]) * {"K": 2**10, "M": 2**20}[size[-1]] for size in sizes if size[-1] in "KM"), default=32 * 2**20
    )


class Ceilings:
    """What was measured so far. A ceiling that other programs disturbed is too low: it is looked for again when it is
    next asked for."""

    def __init__(self, limits=Limits()):
        """`limits` are those of a row; a ceiling takes less time."""
        self.limits = limits._replace(seconds=min(SECONDS, limits.seconds))
        self._found = {}  # "peak", or the bytes of a copy: (rate, whether that was disturbed)

    @property
    def peak(self):
        """Floating-point operations a second in float32."""
        return self._reached("peak", _fma_peak)

    def bandwidth(self, bytes):
        """Bytes a second, read and written, of a copy that takes about so many, to the next power of two: cached if
        `bytes` are."""
        size = min(max(1 << (bytes - 1).bit_length(), SMALLEST), LARGEST)
        return self._reached(size, lambda limits: _copy_bandwidth(size, limits))

    def floor(self, flops, bytes):
        """The least number of seconds that so much arithmetic and traffic can take."""
        return max(flops / self.peak, bytes / self.bandwidth(bytes) if bytes else 0)

    def record(self):
        """For the JSON: GFLOP/s, None if nobody asked for the peak; GB/s by the bytes a copy reads and writes; whether
        one of them was disturbed."""
        rates = {key: rate / 1e9 for key, (rate, _) in self._found.items()}
        peak = rates.pop("peak", None)
        copies = {str(size): rates[size] for size in sorted(rates)}
        disturbed = any(disturbed for _, disturbed in self._found.values())
        return {"peak_gflops": peak, "copy_gbps": copies, "disturbed": disturbed}

    def _reached(self, key, measure):
        before, disturbed = self._found.get(key, (0, True))
        if disturbed:
            rate, disturbed = measure(self.limits)
            self._found[key] = max(rate, before), disturbed
        return self._found[key][0]


def _fma_peak(limits):
    rate = max(cpu.fma_peak(limits.seconds / PEAK_TRIES, torch.get_num_threads()) for _ in range(PEAK_TRIES))
    return rate, False


def _copy_bandwidth(size, limits):
    source, target = torch.zeros(size // 8), torch.zeros(size // 8)
    repeats = max(1, 2**24 // size)  # a timing that the clock resolves

    def copies():
        for _ in range(repeats):
            target.copy_(source)

    timing = best(copies, limits)
    return repeats * size / timing.seconds, timing.disturbed
